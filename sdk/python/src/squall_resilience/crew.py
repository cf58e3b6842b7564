"""Tasks that end within the block that starts them, on asyncio or trio.

What a member raises is its own to write down: a crew neither ends its other members for it nor raises it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from squall_resilience.running import library

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    import trio

__all__ = ["Crew", "Mate", "crew"]


class Mate(Protocol):
    """One task of a crew."""

    def cancel(self) -> None:
        """End it; harmless when it has ended."""


class Crew(Protocol):
    """`async with crew() as hands:`; at its end the block waits for all, and when it raises all are cancelled first."""

    def start(self, call: Callable[[], Coroutine[Any, Any, None]]) -> Mate:
        """Begin a task, with a copy of this context."""

    def cancel(self) -> None:
        """End them all."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool: ...


def crew() -> Crew:
    """A crew on the library that runs this."""
    return _AsyncioCrew() if library() == "asyncio" else _TrioCrew()


class _AsyncioCrew:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: Callable[[], Coroutine[Any, Any, None]]) -> Mate:
        import asyncio

        task = asyncio.create_task(call())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return _AsyncioMate(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain

    def cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        import asyncio

        cancelled: asyncio.CancelledError | None = None
        if error is not None:
            self.cancel()
        while self._tasks:
            try:
                await asyncio.wait(list(self._tasks))
            except asyncio.CancelledError as outside:
                cancelled = outside
                self.cancel()
        if cancelled is not None:
            raise cancelled
        return False


class _AsyncioMate:
    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        self._task.cancel()


class _TrioCrew:
    def __init__(self) -> None:
        import trio

        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery

    def start(self, call: Callable[[], Awaitable[None]]) -> Mate:
        import trio

        scope = trio.CancelScope()

        async def run() -> None:
            with scope, suppress(Exception):  # its own to write down
                await call()

        self._nursery.start_soon(run)
        return scope

    def cancel(self) -> None:
        self._nursery.cancel_scope.cancel()

    async def __aenter__(self) -> Self:
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        if error is not None:
            self.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseException as ended:
            import trio

            # Members' errors stay theirs, so this is a cancellation from outside, or what ends the whole program. An error
            # of the block's own, a cancellation too, goes on as it is, not in a group with those of whom it ended.
            others = _without(ended, trio.Cancelled)
            if others is None and error is not None:
                return False
            if others is None:
                raise _first(ended) from None
            raise
        return False


def _without(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The part of an error, or of a group of errors, that is not of a kind."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[1]
    return None if isinstance(error, kind) else error


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
