"""AdaptiveConcurrency against a simulated dependency whose capacity is known, and as a service uses it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall_resilience.adaptive import AdaptiveConcurrency, AdaptiveSettings, is_drop
from squall_resilience.core.adaptive import AdaptiveLimit
from squall_resilience.errors import BreakerOpen, DeadlineExceeded, Overloaded, SettingsError
from tests.resilience.adaptive.queueing import Dependency
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from squall_resilience.events import Event


def made(clock: Any, **more: Any) -> AdaptiveConcurrency:
    return AdaptiveConcurrency("search", AdaptiveSettings(**more), clock=clock, random=lambda: 0.5, registry=None)


def counts(pattern: AdaptiveConcurrency) -> dict[str, float]:
    return {each.labels[-1][1]: each.value for each in pattern.samples() if each.kind == "counter"}


class TestSearch:
    """Found limits, in a queueing system. The band is the capacity, less a tenth, up to it and the queue that is kept."""

    @staticmethod
    def band(workers: int) -> tuple[float, float]:
        return 0.8 * workers, 1.3 * workers + 3 * workers**0.5

    @pytest.mark.parametrize("workers", [5, 20, 60])
    @pytest.mark.parametrize("spread", [0.0, 0.5])
    def test_it_finds_the_capacity_and_follows_when_it_halves_and_comes_back(self, workers: int, spread: float) -> None:
        dependency = Dependency(workers=workers, service=0.05, spread=spread)
        pattern = made(dependency.clock)
        rate = 1.5 * workers / 0.05
        low, high = self.band(workers)
        assert low <= dependency.run(pattern, rate=rate, seconds=40) <= high
        dependency.workers = workers // 2
        low, high = self.band(workers // 2)
        assert low <= dependency.run(pattern, rate=rate, seconds=30) <= high
        dependency.workers = workers
        low, high = self.band(workers)
        assert low <= dependency.run(pattern, rate=rate, seconds=40) <= high
        assert dependency.finished > 0.85 * (40 + 40 + 30 / 2) * workers / 0.05 / 2.72 ** (spread**2 / 2)

    def test_it_follows_when_every_call_takes_twice_as_long_with_the_next_measurement(self) -> None:
        dependency = Dependency(workers=20, service=0.05)
        pattern = made(dependency.clock)
        dependency.run(pattern, rate=600, seconds=40)
        dependency.service, before = 0.1, dependency.finished
        low, high = self.band(20)
        assert low <= dependency.run(pattern, rate=600, seconds=90) <= high
        assert dependency.finished - before > 0.8 * 90 * 200

    def test_a_long_overload_does_not_become_the_base(self) -> None:
        dependency = Dependency(workers=10, service=0.05)
        pattern = made(dependency.clock)
        low, high = self.band(10)
        for _ in range(6):
            assert low <= dependency.run(pattern, rate=1_000, seconds=60) <= high

    def test_without_overload_nothing_is_rejected_and_the_limit_does_not_run_away(self) -> None:
        dependency = Dependency(workers=20, service=0.05, spread=0.3)
        pattern = made(dependency.clock, low=10)
        limit = dependency.run(pattern, rate=40, seconds=120)  # two of twenty workers
        assert dependency.rejected == 0
        assert limit <= 40

    def test_time_outs_that_always_take_as_long_lower_the_limit_all_the_same(self) -> None:
        dependency = Dependency(workers=10, service=0.05)
        dependency.time_out = 0.01
        pattern = made(dependency.clock, low=3)
        assert dependency.run(pattern, rate=400, seconds=30) == 3

    def test_a_latency_that_cannot_be_healthy_lowers_the_limit_whatever_the_base_says(self) -> None:
        dependency = Dependency(workers=50, service=0.5)
        free, bounded = made(dependency.clock), made(dependency.clock, latency_max="200ms", low=4)
        assert dependency.run(bounded, rate=200, seconds=60) == 4
        assert dependency.run(free, rate=200, seconds=60) > 20

    @pytest.mark.parametrize("jump", [-1e6, -5.0, -0.3, 3.0, 1e6])
    def test_a_clock_that_jumps_disturbs_it_briefly(self, jump: float) -> None:
        dependency = Dependency(workers=20, service=0.05, spread=0.3)
        pattern = made(dependency.clock)
        dependency.run(pattern, rate=600, seconds=30)
        for _ in range(5):
            dependency.jump += jump
            dependency.run(pattern, rate=600, seconds=2)
        low, high = self.band(20)
        assert low <= dependency.run(pattern, rate=600, seconds=40) <= high


times = st.floats(-1e6, 1e6) | st.floats(0, 1)


@given(st.lists(st.tuples(times, times, st.integers(0, 10_000), st.booleans()), max_size=200), st.integers(1, 50))
@settings(deadline=None)
def test_whatever_it_is_told_the_limit_stays_within_its_bounds(
    told: list[tuple[float, float, int, bool]], low: int
) -> None:
    bounds = AdaptiveSettings(low=low, high=60, calls_min=1, window=0.01, probe_every=0.1).bounds()
    found, now = AdaptiveLimit(bounds, 20, 0.0, lambda: 0.5), 0.0
    for passes, took, under_way, dropped in told:
        now += passes
        found.record(now, now - took, under_way, dropped=dropped)
        assert low <= found.limit <= 60


class TestCalls:
    """The pattern itself."""

    def test_calls_beyond_the_limit_are_rejected_at_once(self) -> None:
        heard: list[Event] = []
        pattern = made(lambda: 0.0, initial=2)
        pattern.listeners.add(heard.append)
        with pattern.guard(), pattern.guard():
            with pytest.raises(Overloaded, match="bears about 2"):
                pattern(lambda: None)()
            assert pattern.under_way == 2
        assert pattern(lambda: 7)() == 7
        assert counts(pattern) == {"admitted": 3, "rejected": 1}
        assert [each.kind for each in heard] == ["adaptive_concurrency"]
        assert pattern.under_way == 0

    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), DeadlineExceeded("x")])
    def test_a_failed_call_gives_its_place_back(self, error: BaseException) -> None:
        pattern = made(lambda: 0.0)

        @pattern
        def fails() -> None:
            raise error

        with pytest.raises(type(error)):
            fails()
        assert pattern.under_way == 0

    @both
    def test_a_cancelled_call_gives_its_place_back_and_says_nothing(self, world: World) -> None:
        async def main() -> None:
            pattern = made(world.clock, calls_min=1, window=0.01, low=1)
            before = pattern.limit
            for _ in range(5):
                assert await world.cancelled_after(1, lambda: pattern(world.sleep)(9))
            assert (pattern.under_way, pattern.limit) == (0, before)
            async with pattern.guard():
                assert pattern.under_way == 1
            await pattern(world.sleep)(0)

        world.run(main)

    def test_which_errors_mean_too_much(self) -> None:
        class ReadTimeout(Exception):  # noqa: N818 - a library's own
            pass

        drops = [TimeoutError(), ConnectionResetError(), BreakerOpen("x"), ReadTimeout(), DeadlineExceeded("x")]
        assert all(is_drop(each) for each in drops)
        assert not any(is_drop(each) for each in (ValueError(), KeyError(), OSError()))

    def test_bounds_change_live(self) -> None:
        pattern = made(lambda: 0.0, initial=50)
        pattern.configure(AdaptiveSettings(low=1, high=10))
        assert pattern.limit == 10
        pattern.configure(AdaptiveSettings(low=30))
        assert pattern.limit == 30
        assert pattern.settings.low == 30

    def test_without_the_interpreters_lock_it_takes_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("squall_resilience.adaptive.ONE_STEP", False)
        pattern = made(lambda: 0.0, initial=2)
        assert pattern(lambda: pattern.under_way)() == 1
        assert pattern.under_way == 0

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_of_a_fork_has_nothing_under_way(self) -> None:
        pattern = made(lambda: 0.0, initial=2)
        with pattern.guard():
            child = os.fork()
            if not child:
                os._exit(0 if pattern.under_way == 0 and pattern(lambda: pattern.under_way)() == 1 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pattern.under_way == 0

    def test_settings_that_hold_nothing_are_refused(self) -> None:
        with pytest.raises(SettingsError, match="low: 9 is not at most `high`, which is 5"):
            AdaptiveSettings(low=9, high=5)
