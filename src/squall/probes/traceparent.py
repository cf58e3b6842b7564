"""The trace that a run is, and how a request of a probe or of the load takes it along (W3C Trace Context, level 1).

A request's span id follows from the trace and the time when it was meant to be sent. So the load's process and the
engine come to the same one without a word between them. Standard library only: the load's process has to start fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SPANS_A_RUN", "SPANS_A_SECOND", "Marks", "RunTrace", "Tracing", "marked", "unless_given"]

SPANS_A_SECOND = 10
"""So many requests of a series are recorded each second at most, about: a trace has to stay one that can be looked at."""
SPANS_A_RUN = 2_000

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_64 = 2**64 - 1
_32 = 2**32


@dataclass(frozen=True, slots=True)
class Tracing:
    """That a run is to be a trace."""

    caller: str = ""
    """The `traceparent` of who starts it; empty where it begins one."""
    url: str = ""
    """Where a trace can be looked at; `{trace_id}` stands for which."""


@dataclass(frozen=True, slots=True)
class RunTrace:
    """The trace of one run, in lower-case hex: its id, the id of the run's own span, and the span that it is part of."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    """The caller's span; empty where the run begins its trace."""

    @classmethod
    def of(cls, run: str, caller: str = "") -> RunTrace:
        """The trace of a run: the caller's (a `traceparent`), else one of its own that follows from the run's id.

        A `caller` that is not valid is passed over, as the specification asks.
        """
        digest = blake2b(run.encode(), digest_size=24).hexdigest()
        found = _TRACEPARENT.fullmatch(caller.strip())
        valid = found is not None and found[1] != "ff" and int(found[2], 16) and int(found[3], 16)
        if found is None or not valid or (found[1] == "00" and found[5]):
            return cls(digest[:32], digest[32:])
        return cls(found[2], digest[32:], found[3])

    @classmethod
    def read(cls, traceparent: str, parent_id: str = "") -> RunTrace | None:
        """The trace that `traceparent` says; None when it says none."""
        found = _TRACEPARENT.fullmatch(traceparent)
        return cls(found[2], found[3], parent_id) if found else None

    @property
    def traceparent(self) -> str:
        """As the header has it."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def marks(self, series: str, rate: float, seconds: float) -> Marks:
        """What the requests of a series carry, of which there are at most `rate` a second for about so many seconds."""
        key = int.from_bytes(blake2b(f"{self.span_id}{series}".encode(), digest_size=8).digest(), "big")
        expected = max(rate * seconds, 1.0)
        return Marks(self.trace_id, key, min(1.0, SPANS_A_SECOND / max(rate, 1e-9), SPANS_A_RUN / expected))


@dataclass(frozen=True, slots=True)
class Marks:
    """What the requests of one series carry: each its own span of the run's trace, recorded for a `share` of them."""

    trace_id: str
    key: int
    share: float

    def span(self, time_ns: int) -> int:
        """The span id of the request that was meant for this time, 0 when it is not recorded."""
        span = _mixed(time_ns ^ self.key)
        return span if (span & 0xFFFFFFFF) < self.share * _32 else 0

    def header(self, time_ns: int) -> bytes:
        """The header line of the request that is meant for this time."""
        span = _mixed(time_ns ^ self.key)
        flags = "01" if (span & 0xFFFFFFFF) < self.share * _32 else "00"
        return f"traceparent: 00-{self.trace_id}-{span:016x}-{flags}\r\n".encode()


def marked(data: bytes, header: bytes) -> bytes:
    """A request with one more header line, right after its first line."""
    first = data.index(b"\r\n") + 2
    return b"".join((data[:first], header, data[first:]))


def unless_given(marks: Marks | None, headers: Iterable[str]) -> Marks | None:
    """No marks for requests that are given a `traceparent` of their own."""
    return None if any(name.lower() == "traceparent" for name in headers) else marks


def _mixed(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators); never 0."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64
    return (value ^ (value >> 31)) or 1
