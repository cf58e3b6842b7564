"""What a request is answered that is not served: too fast (429), shed (503), too late (504)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall_resilience import deadline
from squall_resilience.errors import RateLimited, Rejected
from squall_resilience.server.pools import retry_after_header

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TOO_LATE", "Refusal", "refusal_of", "time_left"]


@dataclass(frozen=True)
class Refusal:
    """One such answer."""

    status: int
    reason: str
    text: str
    retry_after: str | None = None

    def headers(self) -> list[tuple[str, str]]:
        """Of the answer; `Connection` and the like are the server's."""
        named = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(self.body)))]
        return named if self.retry_after is None else [*named, ("Retry-After", self.retry_after)]

    @property
    def body(self) -> bytes:
        """Of the answer, a line of text: what the service is made of is nobody's business outside."""
        return f"{self.text}\n".encode()


TOO_LATE = Refusal(504, "Gateway Timeout", "the time that the request was given is over")


def refusal_of(error: Rejected) -> Refusal:
    """The answer for a rejection, as it is when nothing of the time is left."""
    if isinstance(error, RateLimited):
        return Refusal(429, "Too Many Requests", "requests come faster than they may", retry_after_header(error))
    if deadline.remaining() == 0.0:
        return TOO_LATE
    return Refusal(503, "Service Unavailable", "the service is too busy for this request", retry_after_header(error))


def time_left(headers: Iterable[tuple[str | bytes, str | bytes]]) -> float | None:
    """Seconds that the request's own deadline leaves; None when it has none."""
    return deadline.from_headers(headers)
