"""What the proxy refuses, each with the HTTP status that Toxiproxy's API gives it."""

from __future__ import annotations

from typing import ClassVar

from squall.errors import SquallError

__all__ = ["AlreadyExists", "CannotListen", "Invalid", "NotFound", "Refusal"]


class Refusal(SquallError):  # noqa: N818 - reads as what it says
    """The base: `code` names the kind in the control protocol, `status` is the API's HTTP status."""

    code: ClassVar[str] = "failed"
    status: ClassVar[int] = 500


class Invalid(Refusal):
    """A value is wrong."""

    code = "invalid"
    status = 400


class NotFound(Refusal):
    """There is no such proxy or toxic."""

    code = "not_found"
    status = 404


class AlreadyExists(Refusal):
    """There is already a proxy or toxic of that name."""

    code = "exists"
    status = 409


class CannotListen(Refusal):
    """The address cannot be bound: it is in use, not ours, or not an address."""

    code = "listen"
    status = 500
