"""Every error that Squall raises on purpose, in one tree.

- `SquallError`: something was wrong that a person can mend; its message says what, where and what to do.
    - `InputError`: a document, option or value is wrong. Exit status 2; nothing was touched.
        - `UnitError`: a duration, ratio, bandwidth, size or rate that cannot be read.
    - `CannotInject`: a target, capability or permission is missing. Exit status 4; nothing was touched.
        - `TargetError`: a target matches nothing, too much, or something protected; or it is gone.
        - `Conflict`: another run holds the same thing.
        - `Halted`: `squall halt` is on.
    - `ActionFailed`: a step could not be done or undone; what was done before it is undone.
    - `JournalError`: a journal is newer than this Squall, or damaged.
    - `ResidueError`: something could not be undone. Exit status 5; the message says how to remove it.
"""

from __future__ import annotations

__all__ = [
    "ActionFailed",
    "CannotInject",
    "Conflict",
    "Halted",
    "InputError",
    "JournalError",
    "ResidueError",
    "SquallError",
    "TargetError",
    "UnitError",
]


class SquallError(Exception):
    """The root: `exit_status` is what the command line ends with when nobody handles it."""

    exit_status = 1


class InputError(SquallError):
    """A document, option or value is wrong; nothing was touched."""

    exit_status = 2


class UnitError(InputError, ValueError):
    """A quantity that cannot be read; also a ValueError, so that pydantic reports it with its place."""


class CannotInject(SquallError):  # noqa: N818 - reads as what it says
    """A target, capability or permission is missing; nothing was touched."""

    exit_status = 4


class TargetError(CannotInject):
    """A target matches nothing, too much or something protected, or is gone."""


class Conflict(CannotInject):
    """Another run holds the same thing."""


class Halted(CannotInject):
    """`squall halt` is on: nothing new starts."""


class ActionFailed(SquallError):  # noqa: N818 - reads as what it says
    """A step could not be done or undone."""

    exit_status = 4


class JournalError(SquallError):
    """A journal that this Squall must not, or cannot, work on."""

    exit_status = 5


class ResidueError(SquallError):
    """Something of a fault is left behind; the message says exactly what and how to remove it."""

    exit_status = 5
