"""The circuit breaker as a state machine: closed, open, half-open, and forced either way.

Who drives it holds a lock around each call but one: while calls pass, a success is only noted in `notes` (an append),
and taken into account by the next `settle`, which comes at the latest at `due` or after NOTES_MAX notes. A failure settles
first, so that "in a row" is seen in the order in which it happened. Every change of state has notes of its own, or none:
what comes back from a call that began before is told by that, and proves nothing about the time after.
"""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Literal

from squall_resilience.core.breaker_states import BreakerReading, Change, Outcome, Refusal, State
from squall_resilience.core.trials import Trials
from squall_resilience.core.windows import ErrorPeriods, LatencyWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.core.breaker_settings import BreakerSettings

__all__ = ["NOTES_MAX", "BreakerCore"]

NOTES_MAX = 64
_FULL = (0.0,) * NOTES_MAX
_DOUBLINGS_MAX = 32
_LOOKS = 10
"""The latency is looked at so many times in a period."""


class BreakerCore:
    """See the module. All times are of one clock, in seconds."""

    __slots__ = (
        "_forced",
        "_latency",
        "_latency_high",
        "_looked_at",
        "_openings",
        "_periods",
        "_random",
        "_row",
        "_since",
        "_stretch",
        "_trial",
        "_trials",
        "changed",
        "changes",
        "due",
        "failures",
        "notes",
        "rejected",
        "settings",
        "slow_call",
        "state",
        "successes",
    )

    def __init__(self, settings: BreakerSettings, now: float, random: Callable[[], float]) -> None:
        self.settings: BreakerSettings
        self.slow_call: float
        """Seconds; what took longer is a failure."""
        self.state: State = "closed"
        self.notes: list[float] | None = []
        """Latencies of calls that succeeded and are not taken into account yet; None while calls do not just pass."""
        self.due = self._looked_at = now
        self.changes: list[Change] = []
        """Not told yet; whoever tells them removes them."""
        self.changed: dict[tuple[State, State, str], int] = {}
        """How often, by old state, new state and cause."""
        self.successes = self.failures = self.rejected = 0
        self._random = random
        self._forced: Literal["open", "closed"] | None = None
        self._since = now
        self._openings = 0  # since it was closed or forced
        self._stretch = 0.0
        self._row = 0
        self._trial = 0
        self._trials = Trials()
        self._latency = LatencyWindow(now)
        self._latency_high = False
        self._periods = ErrorPeriods(now, settings.period)
        self.configure(settings, now)

    # calls

    def admit(self, now: float) -> list[float] | int | Refusal:
        """What a call that comes now holds while it is under way: notes, or a trial's number; or why it may not pass."""
        self._move_on(now)
        if self.notes is not None:
            return self.notes
        if self.state == "half_open":
            of = self.settings
            self._trial += 1
            if self._trials.offer(self._trial, now, share=of.trial_share, at_once=of.trials_at_once, in_all=of.trials):
                return self._trial
        self.rejected += 1
        return Refusal(self.state, self._wait_left(now) if self.state == "open" else None)

    def finished(self, held: list[float] | int, outcome: Outcome, took: float, now: float) -> None:
        """A call that was admitted has come back after `took` seconds."""
        slow = took > self.slow_call
        if outcome == "success" and slow:
            outcome = "failure"
        self._tally(outcome)
        if isinstance(held, int):
            if outcome == "nothing":
                self._trials.ended(held, won=None)
                return
            limit = self.settings.latency
            won = outcome == "success" and (limit is None or took <= limit)
            if self._trials.ended(held, won=won):
                self._latency.note((took,))
                self._decide(now)
        elif held is self.notes and outcome != "nothing":
            self.settle(now)
            if held is not self.notes:
                return  # settling has opened it
            self._latency.note((took,))
            self._periods.calls += 1
            if outcome == "success":
                self._row = 0
            else:
                self._periods.failures += 1
                self._row += 1
                self._judge(now)

    def settle(self, now: float, notes: list[float] | None = None) -> None:
        """Take the notes into account, and look at the windows when it is time.

        `notes` are those that the caller holds: when they are of an earlier time they are only counted.
        """
        if notes is not None and notes is not self.notes:
            self._take_in_late(notes)
            return
        self._take_in()
        if self.notes is None or self._looked_at <= now < self.due:
            return  # (a clock that went back is looked at again: what was due then might be far ahead)
        of = self.settings
        self._periods.roll(
            now, of.period, of.minimum_calls, 1.0 if of.error_rate is None else of.error_rate, of.periods
        )
        self._latency.roll(now, of.window)
        self._latency_high = (
            of.latency is not None and self._latency.count >= of.minimum_calls and self._latency.p95() > of.latency
        )
        self._plan(now)
        self._judge(now)

    def _plan(self, now: float) -> None:
        of = self.settings
        self._looked_at = now
        self.due = min(self._periods.ends_at, now + min(of.period, of.window) / _LOOKS)

    def _take_in(self) -> None:
        if self.notes is None:
            return
        batch = self.notes[:]
        del self.notes[: len(batch)]
        if taken := len(batch):
            self.successes += taken
            self._periods.calls += taken
            self._row = 0
            self._latency.note(batch)

    def _take_in_late(self, notes: list[float]) -> None:
        late = len(notes) - NOTES_MAX
        del notes[:late]
        self.successes += late

    def _tally(self, outcome: Outcome) -> None:
        if outcome == "success":
            self.successes += 1
        elif outcome == "failure":
            self.failures += 1

    # states

    def look(self, now: float) -> BreakerReading:
        """What it is like now; an open one whose wait is over is half-open from here on."""
        self.settle(now)
        self._move_on(now)
        trials, periods = self._trials, self._periods
        rate = periods.failures / periods.calls if periods.calls >= self.settings.minimum_calls else periods.rate
        if self.state == "half_open":
            ended = trials.won + trials.lost
            rate = trials.lost / ended if ended else nan
        return BreakerReading(
            state=self.state,
            since=max(now - self._since, 0.0),
            forced=self.state in {"forced_open", "forced_closed"},
            wait_left=self._wait_left(now) if self.state == "open" else 0.0,
            error_rate=rate,
            periods_in_a_row=periods.bad,
            failures_in_a_row=self._row,
            latency=self._latency.p95(),
            trials_won=trials.won,
            trials_lost=trials.lost,
            trials_under_way=len(trials.under_way),
            successes=self.successes,
            failures=self.failures,
            rejected=self.rejected,
        )

    def force(self, how: Literal["open", "closed"] | None, now: float) -> None:
        """Keep it open or closed from now on; None: as the settings say, which is the machine's own way by default."""
        self._forced = how
        self._enforce(now, "released" if how is None else "forced")

    def configure(self, settings: BreakerSettings, now: float) -> None:
        """Go by other settings; what was counted stays, and is judged by them."""
        self.settings = settings
        self.slow_call = inf if settings.slow_call is None else settings.slow_call
        self.due = min(self.due, now)
        self._enforce(now, "configured")
        self._move_on(now)

    def forget_trials(self) -> None:
        """Take back the trials under way: nobody is waited for any more."""
        self._trials.under_way.clear()

    def _enforce(self, now: float, cause: str) -> None:
        forced = self._forced or self.settings.forced
        wanted: State
        if forced == "open":
            wanted = "forced_open"
        elif forced == "closed":
            wanted = "forced_closed"
        elif self.state == "forced_open":
            wanted = "half_open"  # nobody knows how the dependency is: the first calls are trials
        elif self.state == "forced_closed":
            wanted = "closed"
        else:
            return
        if wanted != self.state:
            self.settle(now)
            self._go(wanted, now, cause)

    def _judge(self, now: float) -> None:
        if self.state != "closed":
            return
        of = self.settings
        holds = {}
        if of.failures_in_a_row is not None:
            holds["failures_in_a_row"] = self._row >= of.failures_in_a_row
        if of.error_rate is not None:
            holds["error_rate"] = self._periods.bad >= of.periods
        if of.latency is not None:
            holds["latency"] = self._latency_high
        causes = [name for name, true in holds.items() if true]
        if causes and (of.trip == "any" or len(causes) == len(holds)):
            self._go("open", now, causes[0] if of.trip == "any" else "+".join(causes))

    def _move_on(self, now: float) -> None:
        """What time alone decides."""
        if self.state == "open":
            self._since = min(self._since, now)  # the clock may have gone back: never more than one wait
            if self._wait_left(now) <= 0:
                self._go("half_open", now, "wait_over")
        elif self.state == "half_open":
            self._trials.give_up(now, self.settings.trial_timeout)
            self._decide(now)

    def _wait_left(self, now: float) -> float:
        of = self.settings
        wait = of.wait
        if of.wait_max is not None:
            wait = min(wait * 2 ** min(self._openings - 1, _DOUBLINGS_MAX), of.wait_max)
        return max(self._since + wait * (1 + of.jitter * self._stretch) - now, 0.0)

    def _decide(self, now: float) -> None:
        of = self.settings
        decided = self._trials.decided(in_all=of.trials, lost_share_max=of.trial_error_rate)
        if decided == "lost":
            self._go("open", now, "trials_failed")
        elif decided == "won":
            self._go("closed", now, "trials_succeeded")

    def _go(self, new: State, now: float, cause: str) -> None:
        old, figures = self.state, self._figures()
        self.changes.append(Change(old, new, cause, figures))
        self.changed[old, new, cause] = self.changed.get((old, new, cause), 0) + 1
        if self.notes is not None:
            self.notes.extend(_FULL)  # so that whoever still writes there settles at once
            self._take_in_late(self.notes)  # and what was written just before is counted too
        self.forget_trials()  # those still under way prove nothing any more
        self.state, self._since = new, now
        self.notes = [] if new in {"closed", "forced_closed"} else None
        if new == "open":
            self._openings += 1
            self._stretch = self._random()
            return
        if new != "half_open":
            self._openings = 0
        self._row = 0
        self._latency_high = False
        self._periods = ErrorPeriods(now, self.settings.period)
        self._plan(now)
        if new == "closed":
            return  # with the latencies that were seen on the way here
        self._trials = Trials()
        self._latency = LatencyWindow(now)

    def _figures(self) -> dict[str, float]:
        trials, periods = self._trials, self._periods
        figures: dict[str, float] = {"latency": self._latency.p95()}
        if self.state == "half_open":
            figures |= {"trials_won": trials.won, "trials_lost": trials.lost, "trials_under_way": len(trials.under_way)}
        else:
            figures |= {
                "error_rate": periods.rate,
                "periods_in_a_row": periods.bad,
                "failures_in_a_row": self._row,
            }
        return {name: float(value) for name, value in figures.items() if value == value}  # noqa: PLR0124 - no NaN
