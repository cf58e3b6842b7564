"""The budget keeps its promise whatever the order of calls, retries and clock, and back-off its bounds."""

from __future__ import annotations

import random
from math import exp

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from squall_resilience.core.budget import Budget
from squall_resilience.core.retry import RetrySettings, after_failure, back_off
from squall_resilience.errors import SettingsError

SHARE, MINIMUM, WINDOW = 0.2, 3.0, 10.0


class BudgetMachine(RuleBasedStateMachine):
    """Against sums over everything that ever happened."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.budget = Budget(SHARE, MINIMUM, WINDOW, lambda: self.now)
        self.slices: list[tuple[float, float, int]] = []  # calls between two looks at the budget
        self.spent: list[float] = []
        self.looked = self.now
        self.calls = self.taken = 0
        self.highest = MINIMUM

    def allowed(self) -> float:
        """Looks, as the budget does: what has come since is spread over the time since."""
        self.slices.append((self.looked, self.now, self.calls))
        self.looked, self.calls = self.now, 0
        recent = 0.0
        for begin, end, calls in self.slices:
            steps = 50 if end > begin else 1
            for step in range(steps):
                at = begin + (end - begin) * (step + 0.5) / steps
                recent += calls / steps * exp((at - self.now) / WINDOW)
        self.highest = max(self.highest, SHARE * recent)
        spent = sum(exp((at - self.now) / WINDOW) for at in self.spent)
        return max(SHARE * recent, MINIMUM) - spent

    @rule(number=st.integers(1, 200))
    def calls_come(self, number: int) -> None:
        self.budget.calls += number
        self.calls += number

    @rule(seconds=st.floats(0.001, 30))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def one_is_to_be_sent_again(self) -> None:
        allowed = self.allowed()
        granted = self.budget.take()
        if abs(allowed - 1.0) > 0.02:  # the model's sum is not exact either
            assert granted == (allowed >= 1.0)
        if granted:
            self.spent.append(self.now)
            self.taken += 1

    @rule()
    def its_tokens_are_the_models(self) -> None:
        assert self.budget.tokens() == pytest.approx(self.allowed(), abs=0.02, rel=1e-3)

    @invariant()
    def never_more_than_the_window_allows(self) -> None:
        assert self.taken <= (self.highest + 0.02) * (1 + (self.now - 1000.0) / WINDOW) + 1e-6


BudgetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBudget = BudgetMachine.TestCase


@example([(5e-324, 0)])
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 100)), max_size=40))
def test_a_clock_that_jumps_grants_no_more_than_calls_and_time_allow(steps: list[tuple[float, int]]) -> None:
    now, forward, calls, taken = 0.0, 0.0, 0, 0
    budget = Budget(SHARE, MINIMUM, WINDOW, lambda: now)
    for jump, fresh in steps:
        now += jump
        forward += max(0.0, jump)
        calls += fresh
        budget.calls += fresh
        taken += sum(budget.take() for _ in range(5))
        assert taken <= max(SHARE * calls, MINIMUM) * (1 + forward / WINDOW) + 1e-6


def test_a_tenth_of_a_steady_stream_may_be_sent_again() -> None:
    now, taken = 0.0, 0
    budget = Budget(0.1, 1, 10.0, lambda: now)
    for second in range(600):
        for _ in range(50):
            now += 0.02
            budget.calls += 1
            if second >= 100:
                taken += budget.take()
    assert taken / (500 * 50) == pytest.approx(0.1, rel=0.03)


def test_one_that_is_given_back_is_one() -> None:
    budget = Budget(0, 5, 10.0, lambda: 0.0)
    for _ in range(4):
        assert budget.take()
    budget.give_back()
    assert budget.tokens() == 2.0


def test_what_was_not_sent_is_given_back_and_no_more_than_was_taken() -> None:
    budget = Budget(0, 2, 10.0, lambda: 0.0)
    assert [budget.take(), budget.take(), budget.take()] == [True, True, False]
    budget.give_back()
    assert budget.take()
    for _ in range(10):
        budget.give_back()
    assert budget.tokens() == 2.0


@given(
    attempt=st.integers(1, 10_000),
    base=st.floats(0, 100),
    cap=st.floats(100, 3600),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_back_off_is_within_its_bounds_for_any_attempt(attempt: int, base: float, cap: float, drawn: float) -> None:
    wait = back_off(RetrySettings(base=base, cap=cap), attempt, lambda: drawn)
    assert 0 <= wait <= cap
    assert wait <= base * 2 ** min(attempt - 1, 64)


def test_back_off_is_uniform_from_nothing_to_its_bound() -> None:
    draw, rules = random.Random(5).random, RetrySettings(base=1, cap=3)
    for attempt, bound in [(1, 1.0), (2, 2.0), (3, 3.0), (9, 3.0)]:
        waits = [back_off(rules, attempt, draw) for _ in range(4000)]
        assert sum(waits) / 4000 == pytest.approx(bound / 2, rel=0.05)
        assert max(waits) > bound * 0.99
        assert min(waits) < bound * 0.01


def decided(attempt: int = 1, *, safe: bool = True, asked: float | None = None, left: float | None = None) -> object:
    rules = RetrySettings(attempts=3, base=1, cap=1, retry_after_max=5)
    return after_failure(
        rules, Budget(0, 10, 10.0, lambda: 0.0), lambda: 0.5, attempt, safe=safe, asked=asked, left=left
    )


def test_what_is_decided_after_a_failure() -> None:
    assert decided() == 0.5
    assert decided(2) == 0.5
    assert decided(3) == "attempts"
    assert decided(safe=False) == "not_idempotent"
    assert decided(asked=2.0) == 2.5, "the back-off comes on top of what was asked for"
    assert decided(asked=-2.0) == 0.5, "no time is won by asking for less than nothing"
    assert decided(asked=5.0) == 5.5
    assert decided(asked=5.1) == "deadline"
    assert decided(asked=float("nan")) == "deadline"
    assert decided(left=0.5) == "deadline", "a wait up to the deadline leaves no time for an attempt"
    assert decided(left=0.51) == 0.5
    assert decided(left=-1.0) == "deadline"


def test_only_a_retry_that_is_made_costs_a_token() -> None:
    budget, rules = Budget(0, 1, 10.0, lambda: 0.0), RetrySettings(attempts=2, base=1, cap=1)
    for attempt, safe, left in [(2, True, None), (1, False, None), (1, True, 0.1)]:
        after_failure(rules, budget, lambda: 0.5, attempt, safe=safe, asked=None, left=left)
    assert budget.tokens() == 1.0
    assert after_failure(rules, budget, lambda: 0.5, 1, safe=True, asked=None, left=None) == 0.5
    assert after_failure(rules, budget, lambda: 0.5, 1, safe=True, asked=None, left=None) == "budget"


def test_settings_out_of_range_are_told_all_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        RetrySettings(attempts=0, base=-1, cap="long", budget=11, window=0, idempotent=1)  # type: ignore[arg-type]
    assert [each.path for each in raised.value.problems] == [
        "attempts",
        "idempotent",
        "base",
        "cap",
        "budget",
        "window",
    ]
    with pytest.raises(SettingsError, match="base: 6 s is not a duration up to `cap`, 5 s"):
        RetrySettings(base=6)
