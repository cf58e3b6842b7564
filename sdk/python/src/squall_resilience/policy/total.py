"""The deadline of a whole call, around all its attempts and the waits between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from squall_resilience.errors import DeadlineExceeded
from squall_resilience.metrics import Sample
from squall_resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Deadline"]


class Deadline(Timeout):
    """A Timeout for the whole call: what is within inherits it, so an attempt has what is left, if that is less than its own.

    Whatever runs out of this time within has run out of it here: its error says so.
    """

    kind: ClassVar[str] = "deadline"

    def begin_by(self, outer: float, now: float) -> float:
        """See Timeout; the error is this link's."""
        try:
            return super().begin_by(outer, now)
        except DeadlineExceeded as error:
            error.link = self.kind
            raise

    def exceeded(self, start: float, end: float) -> DeadlineExceeded:
        """See Timeout; the error is this link's."""
        error = super().exceeded(start, end)
        error.link = self.kind
        return error

    def ended(self, error: BaseException, start: float, end: float) -> None:
        """See Timeout; a time-out within that had only what was left of this deadline is this link's."""
        if isinstance(error, DeadlineExceeded) and self.clock() >= end:
            error.link = self.kind
        super().ended(error, start, end)

    def samples(self) -> Iterable[Sample]:
        """As a Timeout's, under a name of its own."""
        for outcome, number in (("in_time", self.in_time), ("timed_out", self.timed_out)):
            yield Sample(
                "resilience_deadline_calls_total",
                number,
                (("dependency", self.dependency), ("outcome", outcome)),
                "counter",
                "Calls by whether they ended within their deadline, all attempts included.",
            )
