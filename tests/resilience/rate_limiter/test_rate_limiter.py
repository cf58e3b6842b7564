"""RateLimiter as a service uses it."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience import deadline
from squall_resilience.errors import RateLimited, SettingsError
from squall_resilience.rate_limiter import KeySettings, RateLimiter, RateLimiterSettings
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from squall_resilience.events import Event


class Clock:
    """Seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Any, rate: int = 10, burst: int = 2, *, key: Any = None, **more: Any) -> RateLimiter:
    return RateLimiter(
        "payment", RateLimiterSettings(rate=rate, burst=burst, **more), key=key, clock=clock, registry=None
    )


def counts(limiter: RateLimiter) -> dict[str, float]:
    return {each.labels[-1][1]: each.value for each in limiter.samples() if each.kind == "counter"}


def kept(limiter: RateLimiter) -> float:
    return next(each.value for each in limiter.samples() if each.name == "resilience_rate_limiter_keys")


def test_a_burst_then_the_rate_and_an_exact_retry_after(clock: Clock) -> None:
    heard: list[Event] = []
    limiter = made(clock)
    limiter.listeners.add(heard.append)
    call = limiter(lambda x: x)
    assert [call(1), call(2)] == [1, 2]
    with pytest.raises(RateLimited, match=r"payment: .* in 0\.1 s") as refused:
        call(3)
    assert refused.value.retry_after == pytest.approx(0.1)
    clock.now += refused.value.retry_after
    assert call(3) == 3
    assert counts(limiter) == {"admitted": 3, "rejected": 1}
    assert [(each.kind, each.dependency) for each in heard] == [("rate_limiter", "payment")]


def test_a_guard_and_a_bare_take_use_the_same_bucket(clock: Clock) -> None:
    limiter = made(clock)
    with limiter.guard():
        pass
    limiter.take()
    with pytest.raises(RateLimited), limiter.guard():
        raise AssertionError
    assert counts(limiter) == {"admitted": 2, "rejected": 1}


def test_a_rejected_call_costs_no_token(clock: Clock) -> None:
    limiter = made(clock, burst=1)
    limiter.take()
    for _ in range(50):
        with pytest.raises(RateLimited):
            limiter.take()
    clock.now += 0.1
    limiter.take()


def test_threads_get_no_more_than_there_is_when_switched_at_every_chance() -> None:
    limiter, admitted, interval = made(lambda: 5.0, rate=1, burst=1000), [], sys.getswitchinterval()
    call = limiter(lambda: admitted.append(1))

    def many() -> None:
        for _ in range(500):
            try:
                call()
            except RateLimited:
                return

    threads = [threading.Thread(target=many) for _ in range(6)]
    sys.setswitchinterval(1e-6)
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert len(admitted) == 1000


def test_without_the_interpreters_lock_it_takes_its_own(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall_resilience.rate_limiter.ONE_STEP", False)
    call = made(clock, burst=1)(lambda: 1)
    assert call() == 1
    with pytest.raises(RateLimited):
        call()


@both
def test_waiting_calls_go_one_by_one_at_the_rate(world: World) -> None:
    times: list[float] = []

    async def main() -> None:
        limiter = made(world.clock, rate=10, burst=1, wait=0.35)

        @limiter
        async def call() -> None:
            times.append(world.clock())

        async def hurried() -> None:
            with pytest.raises(RateLimited) as refused:
                await call()
            assert refused.value.retry_after == pytest.approx(0.4)

        await together(world, [call, call, call, call, hurried])
        assert counts(limiter) == {"admitted": 4, "rejected": 1}

    world.run(main)
    assert sorted(times) == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=1e-6)


async def together(world: World, calls: list[Any]) -> None:
    if world.library == "asyncio":
        import asyncio

        await asyncio.gather(*(each() for each in calls))
    else:
        import trio

        async with trio.open_nursery() as nursery:
            for each in calls:
                nursery.start_soon(each)
                await trio.lowlevel.checkpoint()


@both
def test_a_cancelled_wait_gives_its_token_back_if_it_was_the_last(world: World) -> None:
    async def main() -> None:
        limiter = made(world.clock, rate=1, burst=1, wait=5)
        await limiter(world.sleep)(0)
        assert await world.cancelled_after(0.2, lambda: limiter(world.sleep)(0))
        began = world.clock()
        await limiter(world.sleep)(0)
        assert world.clock() - began == pytest.approx(0.8)

    world.run(main)


@both
def test_by_key_a_cancelled_wait_gives_its_token_back_too(world: World) -> None:
    async def main() -> None:
        limiter = made(world.clock, rate=1, burst=1, wait=5, key=lambda seconds: seconds)
        call = limiter(world.sleep)
        await call(0)
        assert await world.cancelled_after(0.2, lambda: call(0))
        began = world.clock()
        await call(0)
        assert world.clock() - began == pytest.approx(0.8)

    world.run(main)


def test_a_thread_waits_for_its_token_and_no_longer_than_its_deadline() -> None:
    limiter = made(time.monotonic, rate=20, burst=1, wait=10)
    call = limiter(time.monotonic)
    first = call()
    assert call() - first >= 0.049
    with deadline.within(0.01), pytest.raises(RateLimited):
        call()


@both
def test_an_async_generator_takes_one_token_for_its_whole_length(world: World) -> None:
    async def main() -> None:
        limiter = made(world.clock, burst=1)

        @limiter
        async def items() -> AsyncIterator[int]:
            for each in range(5):
                yield each

        assert [each async for each in items()] == [0, 1, 2, 3, 4]
        assert counts(limiter) == {"admitted": 1, "rejected": 0}
        with pytest.raises(RateLimited):
            [each async for each in items()]

    world.run(main)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def passes(limiter: RateLimiter, key: str) -> bool:
    try:
        limiter.take(key)
    except RateLimited:
        return False
    return True


class TestKeys:
    """Each key has a bucket of its own."""

    def test_a_parameters_name_is_the_key_however_it_is_given(self, clock: Clock) -> None:
        limiter = made(clock, burst=1, key="tenant")

        @limiter
        def search(words: str, tenant: str = "nobody") -> str:
            return words + tenant

        assert search("a", "acme") == "aacme"
        assert search("a", tenant="other") == "aother"
        assert search("a") == "anobody"
        for refused in (lambda: search("b", "acme"), lambda: search("b", tenant="acme"), lambda: search("b")):
            with pytest.raises(RateLimited):
                refused()

    def test_methods_and_keyword_only_parameters(self, clock: Clock) -> None:
        limiter = made(clock, burst=1, key="tenant")

        class Service:
            @limiter
            def search(self, words: str, *, tenant: int) -> str:
                return words * tenant

        assert Service().search("a", tenant=2) == "aa"
        with pytest.raises(RateLimited):
            Service().search("b", tenant=2)

    def test_a_function_makes_the_key(self, clock: Clock) -> None:
        limiter = made(clock, burst=1, key=lambda user, *_: user.lower())
        call = limiter(lambda user, what: (user, what))
        call("Ann", 1)
        call("Bob", 1)
        with pytest.raises(RateLimited):
            call("ANN", 2)
        assert kept(limiter) == 2

    def test_a_name_that_is_no_parameter_is_said_when_wrapping(self, clock: Clock) -> None:
        limiter = made(clock, key="tenant")
        with pytest.raises(TypeError, match="no parameter 'tenant'"):
            limiter(lambda user: user)
        with pytest.raises(TypeError, match="no parameter 'tenant'"):
            limiter(lambda **tenant: tenant)

    def test_hot_keys_have_rates_of_their_own(self, clock: Clock) -> None:
        limiter = made(clock, burst=1, key="tenant", overrides={"acme": {"rate": 100, "burst": 5}})
        call = limiter(lambda tenant: tenant)
        assert [call("acme") for _ in range(5)] == ["acme"] * 5
        with pytest.raises(RateLimited) as refused:
            call("acme")
        assert refused.value.retry_after == pytest.approx(0.01)
        call("other")
        with pytest.raises(RateLimited):
            call("other")

    def test_settings_change_live_without_refilling(self, clock: Clock) -> None:
        limiter = made(clock, burst=1, key="tenant")
        call = limiter(lambda tenant: tenant)
        call("acme")
        limiter.configure(RateLimiterSettings(rate=1, burst=1, overrides={"acme": KeySettings(2, burst=1)}))
        with pytest.raises(RateLimited) as refused:
            call("acme")
        assert refused.value.retry_after == pytest.approx(0.5)

    @pytest.mark.slow
    def test_a_million_keys_stay_in_bounded_memory_and_harm_nobody(self, clock: Clock) -> None:
        limiter = made(clock, rate=1, burst=3, key="user", keys_max=1000)
        began, before = clock.now, resident_bytes()
        admitted = hot = 0
        for number in range(1_000_000):
            clock.now += 0.0005
            admitted += passes(limiter, f"user-{number}")
            if number % 5_000 == 0:  # between two of these it has fallen out of the table, and gets 2.5 tokens
                hot += sum(passes(limiter, "hot") for _ in range(10))
        assert kept(limiter) == 1000
        assert resident_bytes() - before < 16_000_000
        assert admitted == 1_000_000
        assert hot <= 3 + (clock.now - began)
        assert hot > 0.9 * (clock.now - began)

    def test_no_flood_of_keys_refills_a_bucket(self, clock: Clock) -> None:
        limiter = made(clock, rate=1, burst=3, key="user", keys_max=100)
        assert sum(passes(limiter, "hot") for _ in range(10)) == 3
        for number in range(20_000):
            passes(limiter, f"user-{number}")
            if number % 1_000 == 0:
                assert not passes(limiter, "hot")
        assert kept(limiter) == 100

    def test_flooding_with_used_up_keys_ends_with_its_buckets_time(self, clock: Clock) -> None:
        limiter = made(clock, rate=1, burst=2, key="user", keys_max=100)
        for number in range(5_000):  # many more used-up keys than the sketch has cells
            for _ in range(2):
                try:
                    limiter.take(number)
                except RateLimited:
                    break
        with pytest.raises(RateLimited):
            limiter.take("somebody new")
        clock.now += 2.0
        for number in range(50):
            limiter.take(f"somebody new {number}")
            limiter.take(f"somebody new {number}")

    def test_long_keys_are_told_apart_and_kept_short(self, clock: Clock) -> None:
        limiter = made(clock, burst=1, key="user")
        call = limiter(lambda user: user[:1])
        call("x" * 1_000_000 + "a")
        call("x" * 1_000_000 + "b")
        call(b"x" * 1_000_000)
        call("\ud800" * 1_000)
        with pytest.raises(RateLimited):
            call("x" * 1_000_000 + "a")
        assert sum(sys.getsizeof(key) for key in limiter._keyed.table) < 1_000  # type: ignore[union-attr]

    @both
    def test_async_calls_by_key(self, world: World) -> None:
        async def main() -> None:
            call = made(world.clock, burst=1, key="seconds")(world.sleep)
            await call(0)
            await call(0.01)
            with pytest.raises(RateLimited):
                await call(0)

        world.run(main)


def test_all_settings_that_are_wrong_are_said_at_once_with_their_paths() -> None:
    given = {"rate": 0, "per": "soon", "overrides": {"acme": {"rate": -1}, "b": 7}, "keys_max": 1}
    settings, problems = RateLimiterSettings.read(given, "limits.search")
    assert settings is None
    assert {each.path for each in problems} == {
        "limits.search.rate",
        "limits.search.per",
        "limits.search.overrides.acme.rate",
        "limits.search.overrides.b",
        "limits.search.keys_max",
    }
    with pytest.raises(SettingsError):
        RateLimiterSettings(overrides=[1])  # type: ignore[arg-type]
