"""What a call through a breaker counts as, in each state, and that it is the call it was."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest
import trio

from squall_resilience import BreakerSettings, CircuitBreaker
from squall_resilience.errors import BreakerOpen, BulkheadFull, DeadlineExceeded, Rejected
from tests.resilience.breaker.clockwork import Clocked, PlannedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Halt(BaseException):
    """Stands for what is no Exception."""


OUTCOMES = [
    pytest.param("good", "success", id="result"),
    pytest.param("bad", "failure", id="failed result"),
    pytest.param(PlannedError(), "failure", id="exception"),
    pytest.param(DeadlineExceeded("late"), "failure", id="deadline"),
    pytest.param(ExceptionGroup("many", [ValueError()]), "failure", id="group"),
    pytest.param(BulkheadFull("full"), "nothing", id="rejected by an inner link"),
    pytest.param(Halt(), "nothing", id="base exception"),
    pytest.param(KeyboardInterrupt(), "nothing", id="interrupt"),
    pytest.param(asyncio.CancelledError(), "nothing", id="cancellation"),
    pytest.param(BaseExceptionGroup("many", [Halt(), ValueError()]), "nothing", id="group with a base exception"),
]


def wrapped(it: Clocked, outcome: object) -> Callable[[], object]:
    return lambda: it.call(0.0, outcome)


def awaited(it: Clocked, outcome: object) -> Callable[[], object]:
    async def dependency() -> object:
        await asyncio.sleep(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return lambda: asyncio.run(it.breaker(dependency)())


def in_a_block(it: Clocked, outcome: object) -> Callable[[], object]:
    def block() -> object:
        with it.breaker.guard() as passage:
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome == "bad":
                passage.failed()
            return outcome

    return block


def in_an_async_block(it: Clocked, outcome: object) -> Callable[[], object]:
    async def block() -> object:
        async with it.breaker.guard() as passage:
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome == "bad":
                passage.failed()
            return outcome

    return lambda: asyncio.run(block())


@pytest.mark.parametrize("state", ["closed", "half_open", "forced_closed"])
@pytest.mark.parametrize("way", [wrapped, awaited, in_a_block, in_an_async_block])
@pytest.mark.parametrize(("outcome", "counts"), OUTCOMES)
def test_what_counts_as_what(state: str, way: Any, outcome: object, counts: str) -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=2, trial_error_rate=0.5, trial_share=1.0)
    if state == "half_open":
        it.fail()
        it.wait(10)
    elif state == "forced_closed":
        it.breaker.force_closed()
    before = it.breaker.read()
    assert before.state == state
    if isinstance(outcome, BaseException):
        with pytest.raises(type(outcome)) as caught:
            way(it, outcome)()
        if way is not awaited or not isinstance(outcome, (asyncio.CancelledError, KeyboardInterrupt)):
            assert caught.value is outcome
    else:
        assert way(it, outcome)() == outcome
    after = it.breaker.read()
    assert after.successes - before.successes == (counts == "success")
    assert after.failures - before.failures == (counts == "failure")
    assert after.trials_under_way == 0
    if state == "closed":
        assert after.state == ("open" if counts == "failure" else "closed")
    elif state == "forced_closed":
        assert after.state == "forced_closed"
    elif counts == "nothing":
        assert (after.state, after.trials_won, after.trials_lost) == ("half_open", 0, 0)
    else:
        assert after.state == ("closed" if counts == "success" else "half_open")
        assert after.trials_lost == (counts == "failure")


@pytest.mark.parametrize("way", [wrapped, awaited, in_a_block, in_an_async_block])
@pytest.mark.parametrize("state", ["open", "forced_open"])
def test_an_open_one_does_not_call(state: str, way: Any) -> None:
    it = Clocked(failures_in_a_row=1)
    if state == "open":
        it.fail()
    else:
        it.breaker.force_open()
    with pytest.raises(BreakerOpen):
        way(it, Halt())()


@pytest.mark.parametrize(
    "failures",
    [ConnectionError, (ConnectionError, TimeoutError), lambda error: isinstance(error, ConnectionError)],
    ids=["a class", "classes", "a question"],
)
def test_which_exceptions_count_is_said(failures: Any) -> None:
    it = Clocked(failures=failures, failures_in_a_row=2)
    for error in (ConnectionResetError(), KeyError("no such sku"), ConnectionResetError(), Rejected("full")):
        with pytest.raises(type(error)):
            it.call(0.0, error)
    reading = it.breaker.read()
    assert (reading.successes, reading.failures, reading.state) == (1, 2, "closed")
    with pytest.raises(ConnectionResetError):
        it.call(0.0, ConnectionResetError())
    assert it.breaker.state == "open"


@pytest.mark.parametrize("state", ["closed", "half_open"])
def test_a_question_that_fails_does_not_hold_the_trial(state: str) -> None:
    def ask(error: Exception) -> bool:
        raise RuntimeError("no answer") from error

    it = Clocked(failures=ask, failures_in_a_row=1, wait=10, trials=1, trial_share=1.0)
    if state == "half_open":
        it.breaker.force_open()
        it.breaker.release()
    with pytest.raises(RuntimeError, match="no answer"):
        it.fail()
    assert it.breaker.read().trials_under_way == 0
    it.succeed()
    assert it.breaker.state == "closed"


def test_a_cancelled_task_of_trio_counts_as_nothing() -> None:
    breaker = CircuitBreaker("inventory", BreakerSettings(failures_in_a_row=1), registry=None)

    async def main() -> None:
        with trio.move_on_after(0.01) as scope:
            await breaker(trio.sleep)(60)
        assert scope.cancelled_caught

    trio.run(main)
    assert breaker.read().successes == breaker.read().failures == 0


def test_it_stays_the_function_it_was() -> None:
    breaker = CircuitBreaker("inventory", registry=None)

    def reserve(sku: str, *, count: int = 1) -> str:
        """Take some."""
        return sku * count

    async def soon(sku: str) -> str:
        return sku

    through, through_soon = breaker(reserve), breaker(soon)
    assert inspect.signature(through) == inspect.signature(reserve)
    assert (through.__name__, through.__doc__) == ("reserve", "Take some.")
    assert through("a", count=2) == "aa"
    assert inspect.iscoroutinefunction(through_soon)
    assert asyncio.run(through_soon("a")) == "a"


def test_methods_and_partials_go_through() -> None:
    breaker = CircuitBreaker("inventory", registry=None)

    class Client:
        def __init__(self) -> None:
            self.asked: list[str] = []

        @breaker
        def get(self, path: str) -> int:
            self.asked.append(path)
            return len(self.asked)

        @breaker
        async def get_soon(self, path: str) -> int:
            return self.get(path)

    client = Client()
    assert client.get("/") == 1
    assert asyncio.run(client.get_soon("/")) == 2
    assert breaker(functools.partial(client.get, "/"))() == 3
    assert asyncio.run(breaker(functools.partial(client.get_soon, "/"))()) == 4
    assert breaker.read().successes == 8


def test_the_iteration_of_a_generator_is_one_call() -> None:
    it = Clocked(failures_in_a_row=2)

    @it.breaker
    def rows(fails: bool) -> Iterator[int]:  # noqa: FBT001
        yield 1
        it.wait(0.5)
        if fails:
            raise PlannedError
        yield 2

    @it.breaker
    async def rows_soon(fails: bool) -> AsyncIterator[int]:  # noqa: FBT001
        for row in (1, 2):
            if fails and row == 2:
                raise PlannedError
            yield row

    assert list(rows(fails=False)) == [1, 2]
    assert it.breaker.read().latency == pytest.approx(0.5, rel=0.05)
    closed_early = rows(fails=False)
    assert next(closed_early) == 1
    closed_early.close()  # type: ignore[attr-defined]
    assert (it.breaker.read().successes, it.breaker.read().failures) == (2, 0)
    with pytest.raises(PlannedError):
        list(rows(fails=True))

    async def main() -> None:
        assert [row async for row in rows_soon(fails=False)] == [1, 2]
        with pytest.raises(PlannedError):
            assert [row async for row in rows_soon(fails=True)] == []
        with pytest.raises(PlannedError):
            assert [row async for row in rows_soon(fails=True)] == []

    asyncio.run(main())
    assert it.breaker.state == "open"
    with pytest.raises(BreakerOpen):
        next(iter(rows(fails=False)))


def test_a_call_within_a_call() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=2, trial_share=1.0, trial_error_rate=0.0)

    @it.breaker
    def outer() -> str:
        return inner()

    @it.breaker
    def inner() -> str:
        with it.breaker.guard():
            return "good"

    assert outer() == "good"
    it.fail()
    it.wait(10)
    with pytest.raises(BreakerOpen):
        outer()  # three places are needed, there are two
    assert it.breaker.read().trials_under_way == 0
    assert it.breaker.read().trials_lost == 0, "the rejection of the innermost says nothing"


def test_a_passage_is_for_one_call() -> None:
    breaker = CircuitBreaker("inventory", registry=None)
    passage = breaker.guard()
    with pytest.raises(RuntimeError, match="not entered"):
        passage.__exit__(None, None, None)
    with passage, pytest.raises(RuntimeError, match="for one call"):
        passage.__enter__()
    with pytest.raises(RuntimeError, match="for one call"):
        passage.__enter__()
