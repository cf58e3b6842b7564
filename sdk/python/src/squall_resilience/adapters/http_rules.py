"""What a pattern must know of HTTP: which answers are failures, what may be sent twice, what the answer says of later.

An answer such as 503 is no exception for any client library, but it is a failure for a breaker and a reason to retry. So
within a chain it travels as `FailedAnswer`, and at the chain's end the caller gets the library's own response again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import time
from typing import Generic, TypeVar

from squall_resilience.errors import Rejected

__all__ = ["IDEMPOTENT", "FailedAnswer", "HttpRules", "Meanings", "NotSent", "Sent", "retry_after_seconds"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent again without harm (RFC 9110, 9.2.2)."""

TOO_MANY_REQUESTS = 429
SERVER_ERRORS = range(500, 600)
SECONDS_MAX = 86_400.0

R = TypeVar("R")


class FailedAnswer(ConnectionError, Generic[R]):
    """An answer that counts as a failure, with the library's own response; only within a chain.

    A ConnectionError, because a retry takes those for passing. `retry_after` is what the answer's Retry-After header asks
    for, in seconds; None when it asks for nothing.
    """

    def __init__(self, response: R, status: int, retry_after: float | None) -> None:
        super().__init__(f"answered {status}")
        self.response = response
        self.status = status
        self.retry_after = retry_after


@dataclass
class Sent(Generic[R]):
    """A library's own request as an argument of a chain: without a hash, since what it answers cannot be given twice.

    So a fallback keeps no last good answer of it; its `preset` and `compute` hold. Put a fallback that keeps answers
    around the function that makes something of the response.
    """

    request: R


class NotSent(Rejected, TimeoutError):
    """No connection was free in time: nothing was sent."""

    link = "transport"


class Meanings:
    """A client library's own errors, with what they mean to patterns: still the library's types, and the standard ones too.

    Libraries have exception trees of their own, in which a refused connection is no ConnectionRefusedError. An error is given
    a class that is both, so that a retry knows it for passing, and the caller catches what it always caught.
    """

    def __init__(self, *pairs: tuple[type[Exception], tuple[type[Exception], ...]]) -> None:
        self._pairs = pairs
        self._made: dict[type[Exception], type[Exception] | None] = {}

    def of(self, error: Exception) -> Exception:
        """The same error with its meaning; itself when it has none here, or has it already."""
        kind = type(error)
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        both = self._made[kind]
        if both is None:
            return error
        made = both.__new__(both)
        made.__dict__.update(error.__dict__)
        made.args = error.args
        made.__cause__ = error.__cause__
        made.__context__ = error.__context__
        return made.with_traceback(error.__traceback__)

    def _make(self, kind: type[Exception]) -> type[Exception] | None:
        for of, meanings in self._pairs:
            if issubclass(kind, of):
                new = tuple(each for each in meanings if not issubclass(kind, each))
                if not new:
                    return None
                return type(kind.__name__, (kind, *new), {"__module__": kind.__module__, "__doc__": kind.__doc__})
        return None


@dataclass(frozen=True)
class HttpRules:
    """What counts as a failure of the service that answered, and what may be sent twice."""

    failures: frozenset[int] = frozenset({TOO_MANY_REQUESTS, *SERVER_ERRORS})
    """Statuses: by default any 5xx, and 429, by which a service says that it is overloaded."""
    idempotent: frozenset[str] = IDEMPOTENT
    """Methods that are retried and hedged."""
    idempotency_header: str = "idempotency-key"
    """A request that carries this header may be sent again whatever its method; empty: none does."""
    body_within: int = 1_048_576
    """An answer's body of at most so many bytes, by its Content-Length, is read within the chain, so that time-outs and
    breakers see one that does not come. A longer one, and one of unknown length (a stream), is the caller's: to the chain the
    call has ended when its headers are there."""

    def may_repeat(self, method: str, headers: object = ()) -> bool:
        """Whether a request of this method, with these headers (anything that `in` can be asked of), may be sent again."""
        if method.upper() in self.idempotent:
            return True
        if not self.idempotency_header:
            return False
        wanted = self.idempotency_header.lower()
        names = headers if isinstance(headers, (list, tuple)) else list(headers)  # type: ignore[call-overload]
        return any(str(name).lower() == wanted for name in names)

    def reads(self, status: int, length: str | None, *, bodiless: bool = False) -> bool:
        """Whether an answer's body is read within the chain: its Content-Length is `length`; any body of a failure is."""
        if bodiless or self.fails(status):
            return True
        return length is not None and length.isascii() and length.isdigit() and int(length) <= self.body_within

    def fails(self, status: int) -> bool:
        """Whether an answer of this status is a failure."""
        return status in self.failures


def retry_after_seconds(value: str | None, *, now: float | None = None) -> float | None:
    """The wait that a Retry-After header asks for (RFC 9110, 10.2.3): seconds, or a date; None when it is neither.

    At least 0 and at most a day; `now` is the wall time in seconds.
    """
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), SECONDS_MAX)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    wait = (at - datetime.fromtimestamp(time() if now is None else now, UTC)).total_seconds()
    return min(max(wait, 0.0), SECONDS_MAX) if math.isfinite(wait) else None
