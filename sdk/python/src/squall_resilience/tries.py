"""One call's attempts: what both forms of a retry, the decorator and the loop, ask after each failure."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from squall_resilience.core.retry import Cause, after_failure
from squall_resilience.deadline import moment
from squall_resilience.errors import RetryBudgetSpent, origin_of
from squall_resilience.events import GaveUp, Recovered, Retried

if TYPE_CHECKING:
    from squall_resilience.retry import Retry

__all__ = ["Tries", "repeated"]

NOTES_MAX = 8
"""An exception object that is raised again and again gets no more notes than these."""

repeated: ContextVar[int] = ContextVar("squall_resilience.attempt", default=1)
"""Number of the attempt that the work under way is part of; more than 1: it has been begun before."""

_WHY: dict[Cause, str] = {
    "attempts": "that is all that its settings allow",
    "budget": "the retry budget is spent",
    "deadline": "there is not the time to wait for another",
    "not_idempotent": "it is not declared idempotent, and the failure does not say that nothing was sent",
}


def told(error: object) -> str:
    """An error or an unwanted result in a few words."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever a foreign __str__ raises, the failure itself matters more
        text = "?"
    return f"{type(error).__name__}: {text}"[:200] if isinstance(error, BaseException) else f"result {text}"[:200]


class Tries:
    """The attempts of one call; `number` is that of the one under way."""

    __slots__ = ("_failure", "_of", "_origin", "_outer", "_safe", "_taken", "number", "wait", "waited")

    def __init__(self, of: Retry, *, safe: bool) -> None:
        self._of = of
        self._safe = safe
        self._outer = repeated.get()
        self._taken = False
        self._failure = self._origin = ""
        self.number = 1
        self.wait = 0.0
        self.waited = 0.0

    def begin(self) -> None:
        """The next attempt is sent now, after its wait; what it calls can see that it is not the first."""
        self._taken = False
        self.number += 1
        self._of.retries += 1
        repeated.set(max(self._outer, self.number))

    def end(self) -> None:
        """An attempt has ended."""
        repeated.set(self._outer)

    def succeeded(self) -> None:
        """An attempt went well: if it is not the first, the failures before it went no further."""
        if self.number > 1:
            of = self._of
            of.tell(
                Recovered(
                    kind=of.kind,
                    dependency=of.dependency,
                    attempts=self.number,
                    error=self._failure,
                    origin=self._origin,
                )
            )

    def cancelled(self) -> None:
        """The wait was broken off: what was taken for the next attempt is given back."""
        if self._taken:
            self._taken = False
            self._of.budget.give_back()

    def again(self, error: Exception | None, result: object = None) -> bool:
        """Whether what was raised, or else an unwanted result, is followed by another attempt, after `wait` seconds.

        If not, the exception carries a note of why.
        """
        of, settings = self._of, self._of.settings
        if error is not None and not of.transient(error):
            return False
        failure = result if error is None else error
        if self._outer > 1 and not settings.within_retries:
            decision: float | Cause = "attempts"
        else:
            end = moment.get()
            decision = after_failure(
                settings,
                of.budget,
                of.draw,
                self.number,
                safe=self._safe or (error is not None and of.was_not_sent(error)),
                asked=of.asked(failure),
                left=None if end is None else end - of.clock(),
            )
        if isinstance(decision, str):
            self._give_up(decision, error, failure)
            return False
        self._taken = True
        self.wait = decision
        self.waited += decision
        self._failure = told(failure)
        self._origin = "" if error is None else origin_of(error, of.dependency)
        of.tell(
            Retried(kind=of.kind, dependency=of.dependency, attempt=self.number, wait=decision, error=self._failure)
        )
        return True

    def _give_up(self, cause: Cause, error: Exception | None, failure: object) -> None:
        of = self._of
        of.exhausted[cause] += 1
        why = _WHY[cause]
        if cause == "attempts" and self._outer > 1:
            why = "what it is part of is being tried again already"
        times = "1 attempt" if self.number == 1 else f"{self.number} attempts, {self.waited:.3g} s of waiting"
        text = f"retry {of.dependency!r}: {times}, no more: {why} (budget left: {max(0.0, of.budget.tokens()):.1f})"
        if error is not None:
            if len(getattr(error, "__notes__", ())) < NOTES_MAX:
                error.add_note(text)
            if cause == "budget" and error.__cause__ is None:
                error.__cause__ = RetryBudgetSpent(text, dependency=of.dependency)
        of.tell(GaveUp(kind=of.kind, dependency=of.dependency, attempts=self.number, cause=cause, error=told(failure)))
