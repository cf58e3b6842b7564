"""Generator functions through a guard: the whole iteration is one passage."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from squall_resilience.pattern import Guard

__all__ = ["guarded_generator"]

P = ParamSpec("P")
R = TypeVar("R")


def guarded_generator(guard: Callable[[], Guard], call: Callable[P, R]) -> Callable[P, R]:
    """The same generator function, each of whose iterations is one passage, from its first item to its end.

    What is sent or thrown into it reaches it; closing it early ends the passage as a success.
    """
    if inspect.isasyncgenfunction(call):

        @functools.wraps(call)
        async def over_time(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
            items = call(*args, **kwargs)
            async with guard():
                try:
                    step = items.asend(None)
                    while True:
                        item = await step
                        try:
                            step = items.asend((yield item))
                        except GeneratorExit:
                            return
                        except Exception as error:  # noqa: BLE001 - it was thrown in: the generator's own matter
                            step = items.athrow(error)
                except StopAsyncIteration:
                    return
                finally:
                    await items.aclose()

        return cast("Callable[P, R]", over_time)

    @functools.wraps(call)
    def at_once(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
        items = cast("Generator[Any, Any, Any]", call(*args, **kwargs))
        with guard():
            try:
                return (yield from items)
            except GeneratorExit:
                return None

    return cast("Callable[P, R]", at_once)
