"""What is kept is bounded in number and in age, whatever the order of calls and the clock."""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from squall_resilience.core.last_good import LastGood

TTL, KEYS = 30.0, 4
keys = st.integers(0, 8)


class LastGoodMachine(RuleBasedStateMachine):
    """Against a list of all answers that were ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.kept: LastGood[int] = LastGood(TTL, KEYS)
        self.given: list[tuple[int, int, float]] = []

    def there(self, key: int) -> tuple[int, float] | None:
        newest = list(dict.fromkeys(each[0] for each in reversed(self.given)))[:KEYS]
        if key not in newest:
            return None
        value, at = next((value, at) for known, value, at in reversed(self.given) if known == key)
        return (value, self.now - at) if self.now - at <= TTL else None

    @rule(key=keys)
    def a_good_answer(self, key: int) -> None:
        self.given.append((key, len(self.given), self.now))
        self.kept.put(key, len(self.given) - 1, self.now)

    @rule(seconds=st.sampled_from([0.5, 5.0, 29.5, 31.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=keys)
    def asked(self, key: int) -> None:
        assert self.kept.get(key, self.now) == self.there(key)

    @invariant()
    def never_more_than_may_be(self) -> None:
        assert len(self.kept) <= KEYS


LastGoodMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestLastGood = LastGoodMachine.TestCase


@given(st.lists(st.tuples(keys, st.floats(-1e4, 1e4)), max_size=40))
def test_a_clock_that_jumps_keeps_nothing_for_ever_and_gives_no_negative_age(steps: list[tuple[int, float]]) -> None:
    kept: LastGood[float] = LastGood(TTL, KEYS)
    now = 0.0
    for key, jump in steps:
        now += jump
        found = kept.get(key, now)
        if found is not None:
            assert 0 <= found.age <= TTL
            assert abs(now - found.value) <= TTL
        kept.put(key, now, now)
        assert len(kept) <= KEYS


def test_a_million_keys_take_the_room_of_as_many_as_may_be() -> None:
    kept: LastGood[int] = LastGood(TTL, 100)
    for key in range(1_000_000):
        kept.put(key, key, 0.0)
    assert len(kept) == 100
    assert sys.getsizeof(kept._kept) < 50_000
    assert kept.get(999_999, 1.0) == (999_999, 1.0)
    assert kept.get(0, 1.0) is None


def test_an_answer_stands_in_up_to_its_time_and_not_a_moment_longer() -> None:
    kept: LastGood[str] = LastGood(TTL, KEYS)
    kept.put("a", "answer", 100.0)
    assert kept.get("a", 100.0 + TTL) == ("answer", TTL)
    assert kept.get("a", 100.0 - TTL) == ("answer", 0.0), "a clock that went back"
    assert kept.get("a", 100.001 + TTL) is None
    assert len(kept) == 0
    kept.put("a", "answer", 100.0)
    assert kept.get("a", 99.999 - TTL) is None
