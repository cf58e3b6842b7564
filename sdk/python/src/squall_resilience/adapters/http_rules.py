"""What a pattern must know of HTTP: which answers are failures, what may be sent twice, what the answer says of later.

An answer such as 503 is no exception for any client library, but it is a failure for a breaker and a reason to retry. So
within a chain it travels as `FailedAnswer`, and at the chain's end the caller gets the library's own response again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import time
from typing import Generic, TypeVar

__all__ = ["IDEMPOTENT", "FailedAnswer", "HttpRules", "retry_after_seconds"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent again without harm (RFC 9110, 9.2.2)."""

TOO_MANY_REQUESTS = 429
SERVER_ERRORS = range(500, 600)
SECONDS_MAX = 86_400.0

R = TypeVar("R")


class FailedAnswer(Exception, Generic[R]):
    """An answer that counts as a failure, with the library's own response.

    `retry_after` is what its Retry-After header asks for, in seconds; None when it asks for nothing.
    """

    link = "transport"

    def __init__(self, response: R, status: int, retry_after: float | None) -> None:
        super().__init__(f"answered {status}")
        self.response = response
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class HttpRules:
    """What counts as a failure of the service that answered, and what may be sent twice."""

    failures: frozenset[int] = frozenset({TOO_MANY_REQUESTS, *SERVER_ERRORS})
    """Statuses: by default any 5xx, and 429, by which a service says that it is overloaded."""
    idempotent: frozenset[str] = IDEMPOTENT
    """Methods that are retried and hedged."""
    idempotency_header: str = "idempotency-key"
    """A request that carries this header may be sent again whatever its method; empty: none does."""
    carried: frozenset[str] = field(default=frozenset({"traceparent", "tracestate", "baggage"}))
    """Headers of the trace; written where OpenTelemetry is in use and the caller has not."""

    def may_repeat(self, method: str, headers: object = ()) -> bool:
        """Whether a request of this method, with these headers (anything that `in` can be asked of), may be sent again."""
        if method.upper() in self.idempotent:
            return True
        if not self.idempotency_header:
            return False
        wanted = self.idempotency_header.lower()
        names = headers if isinstance(headers, (list, tuple)) else list(headers)  # type: ignore[call-overload]
        return any(str(name).lower() == wanted for name in names)

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
