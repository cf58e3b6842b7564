"""The breaker's core beside a naive one, which keeps every call and counts anew each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from squall_resilience.core.breaker import NOTES_MAX, BreakerCore
from squall_resilience.core.breaker_settings import BreakerSettings
from squall_resilience.core.breaker_states import Outcome, Refusal

START = 4096.0


@dataclass
class Under:
    """One call under way, as the naive breaker sees it."""

    epoch: int
    trial: bool
    waited_from: float


@dataclass
class Naive:
    """Says what must happen, by the words of the settings. Times are halves of seconds, so that sums are exact."""

    of: BreakerSettings
    now: float = START
    state: str = "closed"
    epoch: int = 0
    manual: str | None = None
    since: float = START
    openings: int = 0
    """Since it was closed or forced."""
    period: float = START
    """When the running period began."""
    ended: list[bool] = field(default_factory=list)
    """Of the calls of the running period, whether they failed."""
    verdicts: list[bool | None] = field(default_factory=list)
    """Of the periods before it: bad, good, silent."""
    all_ended: list[bool] = field(default_factory=list)
    """Since it was closed last."""
    seen: int = 0
    """Calls that came while half-open, or since a turn found no place, that one included."""
    tried: int = 0
    """Turns taken of those."""
    trials: list[Under] = field(default_factory=list)
    proofs: list[bool] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=lambda: {"success": 0, "failure": 0, "nothing": 0, "rejected": 0})

    @property
    def passing(self) -> bool:
        return self.state in {"closed", "forced_closed"}

    def go(self, state: str) -> None:
        self.state, self.since = state, self.now
        self.epoch += 1
        self.trials = []
        if state == "open":
            self.openings += 1
        elif state != "half_open":
            self.openings = 0
        if self.passing:
            self.period, self.ended, self.verdicts, self.all_ended = self.now, [], [], []
        if state == "half_open":
            self.seen, self.tried, self.proofs = 0, 0, []

    def wait(self) -> float:
        wait = self.of.wait
        if self.of.wait_max is not None:
            for _ in range(self.openings - 1):
                wait = min(wait * 2, self.of.wait_max)
        return wait

    def row(self) -> int:
        return next((n for n, failed in enumerate(reversed(self.all_ended)) if not failed), len(self.all_ended))

    def bad_in_a_row(self) -> int:
        bad = silent = 0
        for verdict in self.verdicts:
            silent = silent + 1 if verdict is None else 0
            if silent >= self.of.periods or verdict is False:
                bad = 0
            elif verdict:
                bad += 1
        return bad

    def look(self) -> None:
        """What time decides."""
        if self.passing:
            self.period = min(self.period, self.now)
            while self.now >= self.period + self.of.period:
                said = len(self.ended) >= self.of.minimum_calls
                worst = math.inf if self.of.error_rate is None else self.of.error_rate
                self.verdicts.append(Fraction(sum(self.ended), len(self.ended)) > worst if said else None)
                self.period, self.ended = self.period + self.of.period, []
                if len(self.verdicts) > 300:
                    self.verdicts = self.verdicts[-200:]
            self.judge()
        if self.state == "open":
            self.since = min(self.since, self.now)
            if self.now >= self.since + self.wait():
                self.go("half_open")
        if self.state == "half_open":
            for trial in self.trials:
                trial.waited_from = min(trial.waited_from, self.now)
            for trial in [each for each in self.trials if self.now - each.waited_from >= self.of.trial_timeout]:
                self.trials.remove(trial)
                self.proofs.append(False)
            self.decide()

    def judge(self) -> None:
        row = self.of.failures_in_a_row is not None and self.row() >= self.of.failures_in_a_row
        rate = self.of.error_rate is not None and self.bad_in_a_row() >= self.of.periods
        asked = [x for x, y in ((row, self.of.failures_in_a_row), (rate, self.of.error_rate)) if y is not None]
        if self.state == "closed" and (any(asked) if self.of.trip == "any" else all(asked)):
            self.go("open")

    def decide(self) -> None:
        lost_max = math.floor(Fraction(str(self.of.trial_error_rate)) * self.of.trials)
        lost = self.proofs.count(False)
        if lost > lost_max:
            self.go("open")
        elif self.proofs.count(True) + lost_max >= self.of.trials:
            self.go("closed")

    def admit(self) -> Under | None:
        """A call comes. While calls pass nothing is looked at then, only when one comes back."""
        if self.passing:
            return Under(self.epoch, trial=False, waited_from=self.now)
        self.look()
        if self.passing:
            return Under(self.epoch, trial=False, waited_from=self.now)
        if self.state == "half_open":
            self.seen += 1
            turn = self.tried < 1 + math.floor((self.seen - 1) * Fraction(str(self.of.trial_share)))
            room = len(self.trials) < self.of.trials_at_once
            room = room and len(self.trials) + len(self.proofs) < self.of.trials
            if turn and not room:
                self.seen, self.tried = 1, 0
            elif turn:
                self.tried += 1
                trial = Under(self.epoch, trial=True, waited_from=self.now)
                self.trials.append(trial)
                return trial
        self.totals["rejected"] += 1
        return None

    def finish(self, call: Under, outcome: Outcome) -> None:
        self.totals[outcome] += 1
        if call.trial:
            if any(each is call for each in self.trials):
                self.trials = [each for each in self.trials if each is not call]
                if outcome != "nothing":
                    self.proofs.append(outcome == "success")
                    self.decide()
        elif call.epoch == self.epoch and outcome != "nothing":
            self.look()
            if call.epoch == self.epoch:
                self.ended.append(outcome == "failure")
                self.all_ended.append(outcome == "failure")
                if outcome == "failure":
                    self.judge()


class Breakers(RuleBasedStateMachine):
    """Both are told the same, and must do the same."""

    @initialize(
        trip=st.sampled_from(["any", "all"]),
        error_rate=st.sampled_from([None, 0.4, 0.5]),
        periods=st.integers(1, 3),
        minimum_calls=st.integers(1, 4),
        row=st.sampled_from([None, 1, 3]),
        wait_max=st.sampled_from([None, 20.0]),
        share=st.sampled_from([0.1, 0.25, 0.3, 1.0]),
        trials=st.integers(1, 5),
        at_once=st.integers(1, 3),
        trial_error_rate=st.sampled_from([0.0, 0.2, 0.5]),
    )
    def make(
        self,
        trip: str,
        error_rate: float | None,
        periods: int,
        minimum_calls: int,
        row: int | None,
        wait_max: float | None,
        share: float,
        trials: int,
        at_once: int,
        trial_error_rate: float,
    ) -> None:
        of = BreakerSettings(
            trip=trip,
            error_rate=error_rate if row is not None else 0.4,
            period=8.0,
            periods=periods,
            minimum_calls=minimum_calls,
            failures_in_a_row=row,
            wait=6.0,
            wait_max=wait_max,
            jitter=0.0,
            trial_share=share,
            trials=trials,
            trials_at_once=at_once,
            trial_error_rate=trial_error_rate,
            trial_timeout=5.0,
        )
        self.naive = Naive(of)
        self.core = BreakerCore(of, START, lambda: 0.5)
        self.under_way: list[tuple[Under, list[float] | int]] = []

    @rule()
    def look(self) -> None:
        reading = self.core.look(self.naive.now)
        self.naive.look()
        assert reading.state == self.naive.state
        assert reading.rejected == self.naive.totals["rejected"]
        assert reading.failures == self.naive.totals["failure"]
        assert reading.successes == self.naive.totals["success"]
        assert reading.since == self.naive.now - self.naive.since or self.naive.now < self.naive.since
        if self.naive.passing:
            assert self.core.due > self.naive.now
            assert reading.periods_in_a_row == self.naive.bad_in_a_row()
            assert reading.failures_in_a_row == self.naive.row()
        if self.naive.state == "half_open":
            assert reading.trials_won == self.naive.proofs.count(True)
            assert reading.trials_lost == self.naive.proofs.count(False)
            assert reading.trials_under_way == len(self.naive.trials)

    @rule(times=st.integers(1, 12))
    def come(self, times: int) -> None:
        for _ in range(times):
            held = self.core.admit(self.naive.now)
            call = self.naive.admit()
            assert isinstance(held, Refusal) is (call is None)
            if isinstance(held, Refusal):
                assert held.state == self.naive.state
                left = self.naive.since + self.naive.wait() - self.naive.now
                assert held.retry_after == (left if held.state == "open" else None)
            elif call is not None:
                assert isinstance(held, int) is call.trial
                if len(self.under_way) < 30:
                    self.under_way.append((call, held))
                else:
                    self.end(call, held, "nothing")

    def end(self, call: Under, held: list[float] | int, outcome: Outcome) -> None:
        """As the shell does it."""
        now = self.naive.now
        self.naive.finish(call, outcome)
        if outcome == "success" and isinstance(held, list):
            if now >= self.core.due:
                self.core.settle(now, held)
            held.append(0.5)
            if len(held) >= NOTES_MAX:
                self.core.settle(now, held)
        else:
            self.core.finished(held, outcome, 0.5, now)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 29), outcome=st.sampled_from(["success", "failure", "failure", "nothing"]))
    def come_back(self, which: int, outcome: Outcome) -> None:
        call, held = self.under_way.pop(which % len(self.under_way))
        self.end(call, held, outcome)

    @rule(outcomes=st.lists(st.sampled_from(["success", "failure"]), min_size=1, max_size=8))
    def come_and_go(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            held = self.core.admit(self.naive.now)
            call = self.naive.admit()
            if not isinstance(held, Refusal):
                assert call is not None
                self.end(call, held, outcome)

    @rule(halves=st.integers(1, 20))
    def time_passes(self, halves: int) -> None:
        self.naive.now += halves / 2

    @rule(halves=st.sampled_from([-20000, -64, -16, -3, 64, 500]))
    def clock_jumps(self, halves: int) -> None:
        self.naive.now += halves / 2
        self.look()

    @rule(how=st.sampled_from(["open", "closed", None, None]))
    def force(self, how: str | None) -> None:
        self.core.force(how, self.naive.now)  # type: ignore[arg-type]
        naive = self.naive
        if how is not None and naive.state != f"forced_{how}":
            if naive.passing:
                naive.look()
            naive.go(f"forced_{how}")
        elif how is None and naive.state == "forced_open":
            naive.go("half_open")
        elif how is None and naive.state == "forced_closed":
            naive.go("closed")

    @invariant()
    def the_same_state(self) -> None:
        if hasattr(self, "core"):
            assert self.core.state == self.naive.state, (self.core.changes[-1], self.naive)
            assert (self.core.notes is not None) is self.naive.passing
            assert len(self.core.changes) == self.naive.epoch
            assert sum(self.core.changed.values()) == self.naive.epoch


TestBreakers = Breakers.TestCase
TestBreakers.settings = settings(stateful_step_count=60, deadline=None)
