"""The moment by which the work under way must be done, carried through nested calls and over HTTP and gRPC.

Within a process it is an absolute time of the monotonic clock in a context variable: what is called later has what is
left, never more than its caller, in tasks and (with a copied context) in threads. Between processes it travels as the
time that is left, because two machines' clocks differ: in gRPC as the protocol's own deadline, in HTTP in the header that
gRPC defines for it, `Grpc-Timeout: 1500m`. That form is specified, REST gateways to gRPC honour it, and service meshes
let it pass; Envoy's `X-Envoy-Expected-Rq-Timeout-Ms` is read too, but not written, since each sidecar puts in its own.
The way over the network is not subtracted, so a server stops later than its client by that much.

Source of the header's form: "gRPC over HTTP2", Request-Headers, Timeout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Final

from squall_resilience.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "HEADER",
    "at",
    "at_most",
    "check",
    "detached",
    "from_headers",
    "parse",
    "remaining",
    "to_headers",
    "within",
    "written",
]

HEADER: Final = "Grpc-Timeout"
ENVOY_HEADER: Final = "X-Envoy-Expected-Rq-Timeout-Ms"

_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])")
_DIGITS_MAX = 99_999_999

moment: ContextVar[float | None] = ContextVar("squall_resilience.deadline", default=None)
"""Absolute, in seconds of `time.monotonic`; patterns set it, others use the functions here."""


def at() -> float | None:
    """The deadline as a time of `time.monotonic`, in seconds; None when there is none."""
    return moment.get()


def remaining() -> float | None:
    """Seconds that are left, 0.0 when it has passed; None when there is no deadline."""
    end = moment.get()
    return None if end is None else max(0.0, end - monotonic())


def at_most(seconds: float | None) -> float | None:
    """What is left, but at most this: the time-out to give to a socket, a driver, a client. None: no limit at all."""
    left = remaining()
    if left is None:
        return seconds
    return left if seconds is None else min(seconds, left)


def check() -> None:
    """Raise DeadlineExceeded when it has passed: a place to stop for work that nothing can interrupt."""
    if remaining() == 0.0:
        raise DeadlineExceeded("the deadline of the work that this is part of has passed")


@contextmanager
def within(seconds: float) -> Iterator[float]:
    """A block whose calls have at most so many seconds, or what is left if that is less; gives what they have.

    It interrupts nothing: `Timeout` does. A server's adapter opens one around the handler.
    """
    left = at_most(max(seconds, 0.0))
    assert left is not None  # noqa: S101 - at most something is something
    token = moment.set(monotonic() + left)
    try:
        yield left
    finally:
        moment.reset(token)


@contextmanager
def detached() -> Iterator[None]:
    """A block that the deadline does not bind: work that is started now and goes on after the answer."""
    token = moment.set(None)
    try:
        yield
    finally:
        moment.reset(token)


def written(seconds: float) -> str:
    """A time in the header's form, in whole milliseconds where eight digits hold them, and at least one of its units.

    A time that is over is written as the shortest: "0m" is no valid form.
    """
    for unit, factor in (("m", 1e3), ("S", 1.0)):
        amount = max(1, int(min(seconds, 1e12) * factor))
        if amount <= _DIGITS_MAX:
            return f"{amount}{unit}"
    return f"{_DIGITS_MAX}S"


def parse(text: str) -> float | None:
    """Seconds in a header's value, None where it has not the form (it is then as if it were not there)."""
    found = _GRPC.fullmatch(text.strip())
    return int(found[1]) * _SECONDS[found[2]] if found else None


def to_headers() -> dict[str, str]:
    """What to send along with a request: the header with the time that is left; nothing when there is no deadline."""
    left = remaining()
    return {} if left is None else {HEADER: written(left)}


def from_headers(headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]) -> float | None:
    """Seconds that a request says are left, the least where it says so twice; None when it says nothing.

    Names in any case. It can only shorten what a service takes for itself: open `within` the least of both.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    said = [seconds for name, value in pairs if (seconds := _said(_text(name).lower(), value)) is not None]
    return min(said, default=None)


def _said(name: str, value: str | bytes) -> float | None:
    if name == HEADER.lower():
        return parse(_text(value))
    if name == ENVOY_HEADER.lower():
        digits = _text(value).strip()
        # Envoy says 0 for a route without a time-out
        return int(digits) / 1000 if re.fullmatch("[0-9]{1,12}", digits) and int(digits) else None
    return None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
