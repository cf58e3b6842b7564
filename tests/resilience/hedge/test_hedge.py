"""A slow request gets a second copy, the first answer counts, and the other copy does not outlive it."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import Any

import pytest

from squall_resilience import deadline
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.hedge import Hedge, HedgeSettings
from squall_resilience.metrics import Registry
from squall_resilience.safe import idempotent
from tests.resilience.worlds import World, both

SECONDS_MAX = 30


def hedge_of(rules: HedgeSettings | None = None, **given: Any) -> Hedge:
    given = {"idempotent": True, "registry": None, **given}
    return Hedge("stock", rules or HedgeSettings(delay=1), **given)


class Copies:
    """Copies of one request; each takes its own time, then answers with its number or fails."""

    def __init__(self, world: World, *takes: float, failing: tuple[int, ...] = ()) -> None:
        self.world = world
        self.takes = takes
        self.failing = failing
        self.begun: list[float] = []
        self.cancelled: list[int] = []

    async def __call__(self) -> int:
        number = len(self.begun)
        self.begun.append(round(self.world.clock(), 6))
        try:
            await self.world.sleep(self.takes[number])
        except self.world.cancelled:
            self.cancelled.append(number)
            raise
        if number in self.failing:
            raise ConnectionError(f"copy {number}")
        return number


@both
@pytest.mark.parametrize(
    ("takes", "failing", "answer", "begun", "cancelled", "at", "counted"),
    [
        ((0.5,), (), 0, [0], [], 0.5, "first"),
        ((9, 1), (), 1, [0, 1], [0], 2, "hedged"),
        ((1.5, 9), (), 0, [0, 1], [1], 1.5, "first"),
        ((1.5, 2), (0,), 1, [0, 1], [], 3, "hedged"),
        ((3, 0.5), (1,), 0, [0, 1], [], 3, "first"),
    ],
)
def test_the_first_answer_counts_and_the_loser_is_cancelled(
    world: World, takes: tuple[float, ...], failing: tuple[int, ...], answer: int, begun: list[float],
    cancelled: list[int], at: float, counted: str,
) -> None:  # fmt: skip
    async def main() -> tuple[Copies, Hedge, int, float]:
        copies, hedge = Copies(world, *takes, failing=failing), hedge_of(clock=world.clock)
        given = await hedge.wrap_async(copies)()
        return copies, hedge, given, world.clock()

    copies, hedge, given, ended = world.run(main)
    assert (given, copies.begun, copies.cancelled, ended) == (answer, begun, cancelled, pytest.approx(at))
    assert hedge.calls[counted] == 1  # type: ignore[index]
    assert (sum(hedge.calls.values()), hedge.sent) == (1, len(begun) - 1)


@both
@pytest.mark.parametrize(("takes", "at", "notes"), [((0.5,), 0.5, 0), ((1.5, 2), 3, 1), ((3, 0.5), 3, 1)])
def test_it_fails_when_no_copy_can_answer_any_more_with_the_first_ones_failure(
    world: World, takes: tuple[float, ...], at: float, notes: int
) -> None:
    async def main() -> tuple[str, int, float, Hedge]:
        copies, hedge = Copies(world, *takes, failing=(0, 1)), hedge_of(clock=world.clock)
        with pytest.raises(ConnectionError) as raised:
            await hedge.wrap_async(copies)()
        return str(raised.value), len(getattr(raised.value, "__notes__", [])), world.clock(), hedge

    text, noted, ended, hedge = world.run(main)
    assert (text, noted, ended) == ("copy 0", notes, pytest.approx(at))
    assert hedge.calls == {"first": 0, "hedged": 0, "failed": 1}


@both
@pytest.mark.parametrize("after", [0.5, 1.5])
def test_cancellation_from_outside_ends_both_copies(world: World, after: float) -> None:
    async def main() -> tuple[bool, int, Hedge]:
        copies, hedge = Copies(world, 60, 60), hedge_of(clock=world.clock)
        ended = await world.cancelled_after(after, hedge.wrap_async(copies))
        return ended, len(copies.cancelled), hedge

    ended, cancelled, hedge = world.run(main)
    assert (ended, cancelled) == (True, 1 if after < 1 else 2)
    assert sum(hedge.calls.values()) == 0


@both
def test_a_call_that_may_not_be_carried_out_twice_is_sent_once(world: World) -> None:
    async def main() -> list[int]:
        sent = []
        for given, marked in [(False, False), (True, False), (False, True), (lambda: False, True)]:
            copies = Copies(world, 3, 3)

            async def call(copies: Copies = copies) -> int:
                return await copies()

            hedge = hedge_of(idempotent=given, clock=world.clock)
            await hedge(idempotent(call) if marked else call)()
            sent.append(len(copies.begun))
        return sent

    assert world.run(main) == [1, 2, 2, 1]


@both
def test_when_all_are_slow_the_budget_keeps_the_load_down(world: World) -> None:
    async def main() -> Hedge:
        hedge = hedge_of(HedgeSettings(delay=0.1, budget=0.1, budget_minimum=3), clock=world.clock)

        @hedge
        async def slow() -> None:
            await world.sleep(1)

        for _ in range(300):
            await slow()
        return hedge

    hedge = world.run(main)
    assert hedge.calls == {"first": 300, "hedged": 0, "failed": 0}
    # a call a second: the minimum of 3 in 10 s is what there is
    assert 3 <= hedge.sent <= 3 * (1 + 300 / 10)


@both
def test_the_delay_comes_from_the_latencies_that_were_seen(world: World) -> None:
    async def main() -> tuple[list[float], float]:
        hedge = hedge_of(HedgeSettings(budget_minimum=1000), clock=world.clock)

        @hedge
        async def call(seconds: float) -> None:
            await world.sleep(seconds)

        for number in range(100):
            await call(0.9 if number % 10 == 9 else 0.1)
        copies = Copies(world, 60, 0.1)
        start = world.clock()
        await hedge.wrap_async(copies)()
        return [each - start for each in copies.begun], hedge.latencies.delay(hedge.settings)

    begun, delay = world.run(main)
    assert begun == [pytest.approx(0), pytest.approx(0.9, abs=1e-3)]
    assert delay == pytest.approx(0.9, abs=0.11)


@both
def test_the_calls_own_context_stays_its_callers(world: World) -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")

    async def main() -> str:
        @hedge_of(clock=world.clock)
        async def call() -> None:
            seen.set("what the first copy has set")

        await call()
        return seen.get()

    assert world.run(main) == "what the first copy has set"


class Gates:
    """Blocking copies; each waits at its own gate."""

    def __init__(self, number: int) -> None:
        self.gates = [threading.Event() for _ in range(number)]
        self.begun: list[int] = []
        self.begins = threading.Semaphore(0)
        self.threads: list[str] = []
        self.left: list[float | None] = []

    def __call__(self) -> int:
        number = len(self.begun)
        self.begun.append(number)
        self.threads.append(threading.current_thread().name)
        self.left.append(deadline.remaining())
        self.begins.release()
        assert self.gates[number].wait(SECONDS_MAX)
        return number


def test_a_blocking_call_is_hedged_in_threads_and_its_caller_not_held_up_by_the_loser() -> None:
    gates, hedge = Gates(2), hedge_of(HedgeSettings(delay=0.01))
    gates.gates[1].set()
    assert hedge.wrap_sync(gates)() == 1
    assert hedge.calls["hedged"] == 1
    assert all("hedge stock" in name for name in gates.threads)
    gates.gates[0].set()


def test_a_blocking_call_that_is_fast_is_sent_once_and_keeps_its_context() -> None:
    gates, hedge = Gates(2), hedge_of(HedgeSettings(delay=20))
    gates.gates[0].set()
    with deadline.within(1000):
        assert hedge.wrap_sync(gates)() == 0
    assert (len(gates.begun), hedge.calls["first"]) == (1, 1)
    assert 900 < (gates.left[0] or 0) <= 1000


def test_a_blocking_call_raises_what_its_copy_has_raised() -> None:
    def fails() -> None:
        raise SystemExit(3)

    hedge = hedge_of(HedgeSettings(delay=20))
    with pytest.raises(SystemExit):
        hedge(fails)()
    assert hedge.calls["failed"] == 1


def test_a_blocking_call_is_let_go_at_the_deadline() -> None:
    gates, hedge = Gates(2), hedge_of(HedgeSettings(delay=0.01))
    with deadline.within(0.05), pytest.raises(DeadlineExceeded, match="no copy has answered"):
        hedge.wrap_sync(gates)()
    for gate in gates.gates:
        gate.set()


def test_without_a_thread_to_be_had_the_call_is_made_by_its_caller() -> None:
    hedge, gates = hedge_of(HedgeSettings(delay=20, threads=2)), Gates(3)
    held = hedge.wrap_sync(gates)
    callers = [threading.Thread(target=held) for _ in range(2)]
    for each in callers:
        each.start()
        assert gates.begins.acquire(timeout=SECONDS_MAX)
    gates.gates[2].set()
    assert held() == 2
    assert gates.threads[2] == threading.current_thread().name
    for gate in gates.gates:
        gate.set()
    for each in callers:
        each.join(SECONDS_MAX)
    assert hedge.workers.count <= 2


def test_many_callers_in_threads_each_get_their_own_answer() -> None:
    hedge, wrong = hedge_of(HedgeSettings(delay=0.001, threads=8, budget=1)), []

    @hedge
    def echo(number: int) -> int:
        time.sleep(0.0005 if number % 7 else 0.004)
        return number

    def caller(first: int) -> None:
        wrong.extend(number for number in range(first, first + 100) if echo(number) != number)

    threads = [threading.Thread(target=caller, args=(first * 1000,)) for first in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert not wrong
    assert sum(hedge.calls.values()) == 600


def test_its_numbers_are_in_the_registry() -> None:
    registry = Registry()
    hedge = hedge_of(HedgeSettings(delay=20), registry=registry)
    hedge(lambda: None)()
    text = registry.render()
    assert 'resilience_hedge_calls_total{dependency="stock",outcome="first"} 1' in text
    assert 'resilience_hedge_sent_total{dependency="stock"} 0' in text
    assert 'resilience_hedge_delay_seconds{dependency="stock"} 20' in text


def test_new_settings_are_in_force_for_the_next_call_and_what_was_seen_stays() -> None:
    hedge = hedge_of(HedgeSettings(calls_min=1, delay_max=50, threads=2))
    hedge.latencies.add(7.0)
    assert hedge.latencies.delay(hedge.settings) == 7.0
    hedge.configure(HedgeSettings(calls_min=1, delay_max=5, threads=9))
    assert hedge.latencies.delay(hedge.settings) == 5.0
    assert hedge.workers.limit == 9
