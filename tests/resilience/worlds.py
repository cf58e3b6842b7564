"""Both async libraries, each with a clock that jumps to the next timer as soon as nothing else is to be done."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LIBRARIES", "World", "both"]

LIBRARIES = ("asyncio", "trio")
T = TypeVar("T")

both = pytest.mark.parametrize("world", LIBRARIES, indirect=True)
"""For a test with an argument `world: World`; the fixture is in the conftest of tests/resilience."""


class JumpingSelector(selectors.DefaultSelector):
    """Does not wait for a timer: the loop's time goes on instead."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; else, with a timer ahead, time jumps to it."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.skipped += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, from time 0."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made, waits only."""
        return self._jumping.skipped


class World:
    """Runs a coroutine function on one library; `clock` is that library's time, from 0."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.clock: Callable[[], float] = float

    def run(self, call: Callable[[], Awaitable[T]], *, jumping: bool = True) -> T:
        """What the call gives; time jumps unless `jumping` is false (threads take part)."""
        return contextvars.copy_context().run(self._run, call, jumping)

    def _run(self, call: Callable[[], Awaitable[T]], jumping: bool) -> T:  # noqa: FBT001
        if self.library == "asyncio":
            with asyncio.Runner(loop_factory=JumpingLoop if jumping else None) as runner:
                self.clock = runner.get_loop().time
                return runner.run(_awaited(call))

        async def main() -> T:
            start = trio.current_time()
            self.clock = lambda: trio.current_time() - start
            return await call()

        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if jumping else None)

    async def sleep(self, seconds: float) -> None:
        """The library's own."""
        if self.library == "asyncio":
            await asyncio.sleep(seconds)
        else:
            await trio.sleep(seconds)

    @property
    def cancelled(self) -> type[BaseException]:
        """What a cancelled task is raised."""
        return asyncio.CancelledError if self.library == "asyncio" else trio.Cancelled

    async def cancelled_after(self, seconds: float, call: Callable[[], Awaitable[Any]]) -> bool:
        """Run the call in a task that is cancelled from outside after so many seconds: whether that reached its end."""
        ended = False

        async def watched() -> None:
            nonlocal ended
            try:
                await call()
            except self.cancelled:
                ended = True
                raise

        if self.library == "trio":
            with trio.move_on_after(seconds):
                await watched()
            return ended
        task = asyncio.create_task(watched())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        return ended

    async def together(self, *calls: Callable[[], Any]) -> None:
        """Run all of these at once, to the end of the last."""
        if self.library == "trio":
            async with trio.open_nursery() as nursery:
                for call in calls:
                    nursery.start_soon(call)
            return
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call())


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()
