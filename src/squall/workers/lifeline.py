"""What a worker hangs by: its standard input, a pipe that its owner holds.

The end of the pipe ends the worker, a line on it is a new configuration; a signal that asks for the end does the same
as the end of the pipe. The worker says one line: "ready", or why it cannot work.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from squall.kernel import own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["HELD_BACK", "Ended", "Lifeline", "Refused", "enter", "run", "sized"]

HELD_BACK = "squall-held"
"""The name of a worker that takes no more because the machine could not spare it."""
_LINE_MOST = 1 << 20
_ASKS_FOR_THE_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(Exception):  # noqa: N818 - not an error
    """The owner is gone, or somebody asked the worker to end."""


class Refused(Exception):  # noqa: N818 - reads as what it says
    """The worker cannot do what is asked; the message is one line that says why."""


class Lifeline:
    """The owner's end of a worker's life; for the main thread only."""

    def __init__(self) -> None:
        self._partial = b""
        for number in _ASKS_FOR_THE_END:
            signal.signal(number, self._asked_to_end)

    def _asked_to_end(self, *_: object) -> NoReturn:
        for number in _ASKS_FOR_THE_END:  # the way out is walked once
            signal.signal(number, signal.SIG_IGN)
        raise Ended

    def wait(self, seconds: float | None) -> dict[str, Any] | None:
        """Wait so long (None: for ever) for the owner; a new configuration if it sent one, which may come early.

        Ended at the end of the pipe.
        """
        if not select.select([0], [], [], None if seconds is None else max(0.0, seconds))[0]:
            return None
        data = os.read(0, 1 << 16)
        if not data or len(self._partial) > _LINE_MOST:
            raise Ended
        *lines, self._partial = (self._partial + data).split(b"\n")
        if not lines:
            return None
        config: dict[str, Any] = json.loads(lines[-1])
        return config

    def ready(self) -> None:
        """Tell the owner that the work begins; nothing is said after that."""
        self.say("ready")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    def say(self, line: str) -> None:
        """Write a line to whoever started the worker, if it still listens."""
        with contextlib.suppress(OSError):
            os.write(1, " ".join(line.split()).encode() + b"\n")


def run(work: Callable[[Lifeline, Mapping[str, Any]], None]) -> int:
    """Work until the end of the life line; the exit status: 0, or 1 with the reason said.

    An owner that is gone already is noticed before anything begins.
    """
    line = Lifeline()
    try:
        work(line, line.wait(0) or json.loads(sys.argv[1]))
    except Ended:
        return 0
    except Refused as refused:
        line.say(str(refused))
    except Exception as error:  # noqa: BLE001 - whatever it is, the owner must be told
        line.say(f"{type(error).__name__}: {error}")
    return 1


def enter(folders: Sequence[str], pid: int | None = None) -> None:
    """Let the kernel's OOM killer take this process before any other, and put it (or its child) into the cgroups.

    Refused where that is not allowed.
    """
    own.be_killed_first(pid)
    for folder in folders:
        try:
            own.join(folder, pid)
        except OSError as error:
            hint = {
                "EBUSY": ": it has groups below it and so holds no processes; name one of those",
                "EOPNOTSUPP": ": it holds threads only",
                "EACCES": ": run as root",
                "ENOENT": ": it is gone",
            }.get(_name(error), "")
            raise Refused(f"the cgroup {folder} cannot be joined ({error.strerror}){hint}") from error


def _name(error: OSError) -> str:
    import errno

    return errno.errorcode.get(error.errno or 0, "")


def sized(amount: float) -> str:
    """A number of bytes for people, to four digits: "64 MiB", "1.5 GiB"."""
    power = max(1, min(4, (int(amount).bit_length() - 1) // 10))
    return f"{amount / 1024**power:.4g} {'KMGT'[power - 1]}iB"
