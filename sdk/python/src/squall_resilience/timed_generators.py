"""Generator functions with a deadline: one for the whole iteration, in force during each step.

A guard around the whole iteration would be wrong here: between two steps the consumer runs, in the same context and on
asyncio in the same task, so the deadline would be its own, and a cancellation would hit it.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from squall_resilience.deadline import moment
from squall_resilience.running import cancel_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from squall_resilience.timeout import Timeout

__all__ = ["timed_generator"]

P = ParamSpec("P")
R = TypeVar("R")


def timed_generator(timeout: Timeout, call: Callable[P, R]) -> Callable[P, R]:
    """The same generator function; the time runs from its first step, also while the consumer has the items.

    What is sent or thrown into it reaches it; when its time is over it is closed, and its consumer gets DeadlineExceeded.
    """
    if inspect.isasyncgenfunction(call):
        return cast("Callable[P, R]", _over_time(timeout, call))
    return cast("Callable[P, R]", _at_once(timeout, cast("Callable[P, Generator[Any, Any, Any]]", call)))


class _Iteration:
    """One iteration's time."""

    def __init__(self, of: Timeout) -> None:
        self.of = of
        self.start = of.clock()
        self.end = self.start + of.settings.limit
        inherited = moment.get()
        if inherited is not None and inherited < self.end:
            self.end = of.begin_by(inherited, self.start)

    def left(self) -> float:
        """Seconds for the next step; DeadlineExceeded when there are none."""
        left = self.end - self.of.clock()
        if left <= 0:
            raise self.of.exceeded(self.start, self.end)
        return left

    def step(self, take: Callable[[], Any]) -> Any:
        """The next item; StopIteration when there is none."""
        self.left()
        outer = moment.get()
        moment.set(self.end)
        try:
            item = take()
        except StopIteration:
            raise
        except BaseException as error:
            self.of.ended(error, self.start, self.end)
            raise
        finally:
            moment.set(outer)
        self.left()
        return item

    async def step_async(self, take: Callable[[], Awaitable[Any]]) -> Any:
        """The same, cancelled when its time is over; StopAsyncIteration when there is no other item."""
        left = self.left()
        outer = moment.get()
        moment.set(self.end)
        try:
            with cancel_after(left) as scope:
                return await take()
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self.of.ended(error, self.start, self.end)
            raise
        finally:
            moment.set(outer)
        assert scope.expired  # noqa: S101 - nothing else leaves the block without an answer
        raise self.of.exceeded(self.start, self.end)


def _at_once(timeout: Timeout, call: Callable[P, Generator[Any, Any, Any]]) -> Callable[P, Generator[Any, Any, Any]]:
    @functools.wraps(call)
    def timed(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
        iteration = _Iteration(timeout)
        items = call(*args, **kwargs)
        take: Callable[[], Any] = functools.partial(next, items)
        try:
            while True:
                item = iteration.step(take)
                try:
                    take = functools.partial(items.send, (yield item))
                except GeneratorExit:
                    timeout.in_time += 1
                    return None
                except BaseException as error:  # noqa: BLE001 - it was thrown in: the generator's own matter
                    take = functools.partial(items.throw, error)
        except StopIteration as end:
            timeout.in_time += 1
            return end.value
        finally:
            items.close()

    return timed


def _over_time(timeout: Timeout, call: Callable[P, AsyncGenerator[Any, Any]]) -> Callable[P, AsyncGenerator[Any, Any]]:
    @functools.wraps(call)
    async def timed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        iteration = _Iteration(timeout)
        items = call(*args, **kwargs)
        take: Callable[[], Awaitable[Any]] = functools.partial(items.asend, None)
        try:
            while True:
                item = await iteration.step_async(take)
                try:
                    take = functools.partial(items.asend, (yield item))
                except GeneratorExit:
                    timeout.in_time += 1
                    return
                except BaseException as error:  # noqa: BLE001 - it was thrown in: the generator's own matter
                    take = functools.partial(items.athrow, error)
        except StopAsyncIteration:
            timeout.in_time += 1
        finally:
            await items.aclose()

    return timed
