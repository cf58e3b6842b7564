"""Token buckets against naive models: exact fractions for one bucket, an unbounded dictionary for many."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from squall_resilience.core.bucket import Bucket, Rate
from squall_resilience.core.keyed import KeyedBuckets

TICK = Fraction(1, 64)
"""Times are whole ticks, which floats hold exactly: what is compared is the algorithm, not its rounding."""


class NaiveBucket:
    """Tokens as a person counts them."""

    def __init__(self, interval: Fraction, burst: int) -> None:
        self.interval, self.burst = interval, burst
        self.tokens, self.at = Fraction(burst), Fraction(0)

    def flow(self, now: Fraction) -> None:
        if now > self.at:
            self.tokens = min(Fraction(self.burst), self.tokens + (now - self.at) / self.interval)
        self.at = now

    def take(self, now: Fraction, patience: Fraction) -> Fraction:
        self.flow(now)
        wait = max(Fraction(0), (1 - self.tokens) * self.interval)
        if wait <= patience:
            self.tokens -= 1
            return wait
        return -wait


class BucketMachine(RuleBasedStateMachine):
    """One bucket, with waiting, giving back, and a clock that only goes on."""

    @initialize(interval=st.integers(1, 64), burst=st.integers(1, 5), reach=st.integers(0, 256))
    def make(self, interval: int, burst: int, reach: int) -> None:
        self.interval, self.burst, self.wait = interval * TICK, burst, reach * TICK
        self.naive = NaiveBucket(self.interval, burst)
        self.bucket = Bucket(
            Rate(float(self.interval), float(self.interval * burst), float(self.interval * burst + self.wait))
        )
        self.now = Fraction(0)

    @rule(ticks=st.integers(0, 200))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks * TICK

    @rule(share=st.integers(0, 4))
    def takes(self, share: int) -> None:
        patience = self.wait * share / 4
        assert self.bucket.take(float(self.now), float(patience)) == float(self.naive.take(self.now, patience))

    @rule()
    def gives_back(self) -> None:
        wait = self.naive.take(self.now, self.wait)
        assert self.bucket.take(float(self.now), float(self.wait)) == float(wait)
        if wait >= 0:
            assert self.bucket.give_back(self.bucket.full_at)
            self.naive.tokens += 1

    @rule()
    def who_comes_when_told_gets_one(self) -> None:
        wait = self.bucket.take(float(self.now))
        assert wait == float(self.naive.take(self.now, Fraction(0)))
        if wait < 0:
            self.now += Fraction(-wait)
            assert self.bucket.take(float(self.now)) == 0 == self.naive.take(self.now, Fraction(0))


BucketMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBucket = BucketMachine.TestCase

rates = st.builds(Rate.of, st.integers(1, 10**5), st.floats(0.1, 1000), st.integers(1, 1000))


@given(rate=rates, start=st.floats(0, 1e6), steps=st.lists(st.floats(0, 100), max_size=60))
@settings(deadline=None)
def test_never_more_than_a_burst_and_the_rate_in_any_stretch_of_time(
    rate: Rate, start: float, steps: list[float]
) -> None:
    bucket, now, admitted = Bucket(rate), start, []
    for step in steps:
        now += step * rate.interval
        admitted += [now] * (bucket.take(now) == 0)
    for first, began in enumerate(admitted):
        for last in range(first, len(admitted)):
            may = rate.depth / rate.interval + (admitted[last] - began) / rate.interval
            assert last - first + 1 <= may + 2e-3


@given(rate=rates, start=st.floats(0, 1e6), jumps=st.lists(st.floats(-1e6, 1e6), max_size=40))
@settings(deadline=None)
def test_who_comes_exactly_when_told_gets_a_token_whatever_the_clock_did_before(
    rate: Rate, start: float, jumps: list[float]
) -> None:
    bucket, now = Bucket(rate), start
    for jump in jumps:
        now = min(1e6, max(0.0, now + jump))
        wait = bucket.take(now)
        assert -wait <= rate.interval + rate.depth
        if wait < 0:
            now -= wait
            assert bucket.take(now) == 0


@given(rate=rates, back=st.floats(0, 1e6))
@settings(deadline=None)
def test_a_clock_that_goes_back_blocks_no_longer_than_one_token_takes_and_gives_no_burst(
    rate: Rate, back: float
) -> None:
    bucket, now = Bucket(rate), 1e6
    burst = round(rate.depth / rate.interval)
    assert any(bucket.take(now) < 0 for _ in range(burst + 9))  # until it is empty
    wait = bucket.take(now - back)
    assert -rate.interval * 1.01 - 1e-6 <= wait < 0


def test_another_rate_refills_nothing() -> None:
    bucket = Bucket(Rate.of(10, 1.0, 10))
    for _ in range(10):
        assert bucket.take(0.0) == 0
    bucket.configure(Rate.of(1, 1.0, 10), 0.0)
    assert bucket.take(0.0) < 0
    assert bucket.take(1.0) == 0
    bucket.configure(Rate.of(1000, 1.0, 2), 1.0)
    assert bucket.take(1.0) < 0


class KeyedMachine(RuleBasedStateMachine):
    """A small table and its sketch, against a dictionary that forgets nothing: it may only ever be stricter."""

    @initialize(keys_max=st.integers(1, 6), burst=st.integers(1, 3))
    def make(self, keys_max: int, burst: int) -> None:
        self.burst, self.keys_max = burst, keys_max
        self.keyed = KeyedBuckets(self.rate(1.0), keys_max, {"own": self.rate(0.25)})
        self.naive: dict[object, NaiveBucket] = {}
        self.now = Fraction(0)

    def rate(self, interval: float) -> Rate:
        return Rate(interval, interval * self.burst, interval * self.burst)

    @rule(ticks=st.integers(0, 128))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks * TICK

    @rule(key=st.sampled_from([*range(30), "own", "x" * 500, b"y" * 500]))
    def takes(self, key: object) -> None:
        interval = Fraction(1, 4) if key == "own" else Fraction(1)
        naive = self.naive.setdefault(key, NaiveBucket(interval, self.burst))
        naive.flow(self.now)
        if self.keyed.take(key, float(self.now)) == 0:
            assert naive.tokens >= 1, "a key got more than its own bucket gives"
            naive.tokens -= 1
        elif key == "own":
            assert naive.tokens < 1, "a key with a rate of its own is kept exactly"

    @rule(keys_max=st.integers(1, 6))
    def resized(self, keys_max: int) -> None:
        self.keys_max = keys_max
        self.keyed.configure(self.rate(1.0), keys_max, {"own": self.rate(0.25)}, float(self.now))

    @invariant()
    def stays_small(self) -> None:
        assert len(self.keyed.table) <= self.keys_max
        assert all(not isinstance(key, str) or len(key) < 200 for key in self.keyed.table)


KeyedMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestKeyed = KeyedMachine.TestCase


def test_with_room_for_all_keys_each_is_exact() -> None:
    keyed = KeyedBuckets(Rate.of(2, 1.0, 2), 100, {})
    for key in range(100):
        assert [keyed.take(key, 0.0) == 0 for _ in range(3)] == [True, True, False]
    assert all(keyed.take(key, 0.5) == 0 for key in range(100))


def test_a_key_moves_to_a_rate_of_its_own_and_back_with_what_it_has_used() -> None:
    slow, fast = Rate.of(1, 1.0, 4), Rate.of(10, 1.0, 4)
    keyed = KeyedBuckets(slow, 16, {})
    for _ in range(4):
        assert keyed.take("hot", 0.0) == 0
    keyed.configure(slow, 16, {"hot": fast}, 0.0)
    assert keyed.take("hot", 0.0) == pytest.approx(-0.1)
    assert keyed.take("hot", 0.1) == 0
    keyed.configure(slow, 16, {}, 0.1)
    assert keyed.take("hot", 0.1) == pytest.approx(-1.0)
