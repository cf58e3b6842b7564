"""What differs between asyncio and trio (anyio runs on one of the two), and threads beside them.

Patterns import neither: a call that is awaited runs on one of them already, so it is there to be asked.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType


__all__ = ["CancelScope", "ThreadWaiter", "Waiter", "Wakeable", "cancel_after", "library", "sleep"]

THREAD_WAIT_MAX = threading.TIMEOUT_MAX


def library() -> Literal["asyncio", "trio"]:
    """Which one runs the code that calls this; RuntimeError when none does.

    The one whose task is the innermost: trio as a guest of asyncio's loop runs outside of asyncio's tasks, and a
    loop of asyncio within trio runs its tasks inside one of trio's.
    """
    aio = sys.modules.get("asyncio")
    if aio is not None:
        try:
            if aio.current_task() is not None:
                return "asyncio"
        except RuntimeError:
            pass  # no loop in this thread
    guest = sys.modules.get("trio")
    if guest is not None and guest.lowlevel.in_trio_task():
        return "trio"
    raise RuntimeError("there is no task of asyncio or trio here: await this inside of one")


async def sleep(seconds: float) -> None:
    """Let others run for so many seconds; at least once, also when `seconds` is 0 or less."""
    wait = max(seconds, 0.0)
    if library() == "asyncio":
        import asyncio

        await asyncio.sleep(wait)
    else:
        import trio

        await trio.sleep(wait)


class Waiter:
    """One task that waits to be woken, once; `wake()` may come first, and from any thread.

    Made in the task that waits. `woken` is true from the moment that `wake()` was called: who hands something over
    by waking decides under its own lock whether the waiter still stands in line, and a waiter that was cancelled or
    ran out of time looks under that lock whether it was given something that it must pass on.
    """

    __slots__ = ("_implementation", "woken")

    def __init__(self) -> None:
        self.woken = False
        self._implementation = _AsyncioWaiter() if library() == "asyncio" else _TrioWaiter()

    async def wait(self, seconds: float | None = None) -> bool:
        """Until woken, or for so many seconds: whether it was woken. A cancellation goes through."""
        if not self.woken:
            await self._implementation.wait(seconds)
        return self.woken

    def wake(self) -> None:
        """Let it go on. Harmless when it does not wait any more, or its loop has ended."""
        self.woken = True
        self._implementation.wake()


class _AsyncioWaiter:
    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.get_ident()

    def _done(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._future
            return
        timer = self._loop.call_later(max(seconds, 0.0), self._done)
        try:
            await self._future
        finally:
            timer.cancel()

    def wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._done()
            return
        with suppress(RuntimeError):  # the loop is closed: nobody waits there
            self._loop.call_soon_threadsafe(self._done)


class _TrioWaiter:
    __slots__ = ("_event", "_thread", "_token")

    def __init__(self) -> None:
        import trio

        self._event = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    async def wait(self, seconds: float | None) -> None:
        import trio

        if seconds is None:
            await self._event.wait()
        else:
            with trio.move_on_after(max(seconds, 0.0)):
                await self._event.wait()

    def wake(self) -> None:
        import trio

        if threading.get_ident() == self._thread:
            self._event.set()
            return
        with suppress(trio.RunFinishedError):  # nobody waits there
            self._token.run_sync_soon(self._event.set)


class ThreadWaiter:
    """The same for one thread that waits."""

    __slots__ = ("_lock", "woken")

    def __init__(self) -> None:
        self.woken = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float | None = None) -> bool:
        """Until woken, or for so many seconds: whether it was woken."""
        if not self.woken:
            self._lock.acquire(timeout=-1 if seconds is None else min(max(seconds, 0.0), THREAD_WAIT_MAX))
        return self.woken

    def wake(self) -> None:
        """Let it go on. Harmless when it does not wait any more."""
        self.woken = True
        with suppress(RuntimeError):  # woken before
            self._lock.release()


class Wakeable(Protocol):
    """Either kind of waiter, for a queue that holds both."""

    woken: bool

    def wake(self) -> None:
        """Let it go on."""


class CancelScope(Protocol):
    """`with cancel_after(seconds) as scope:`, then `scope.expired`."""

    expired: bool
    """Whether the block was cancelled because its time was over; its cancellation was then caught at the block's end."""

    def cancel(self) -> None:
        """Its time is over now."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool: ...


def cancel_after(seconds: float | None) -> CancelScope:
    """A block that is cancelled after so many seconds (None: by `cancel()` only), for a plain `with` around awaits.

    A cancellation from outside always goes through, also when it comes together with the block's own expiry.
    """
    return _AsyncioScope(seconds) if library() == "asyncio" else _TrioScope(seconds)


class _AsyncioScope:
    """As asyncio.timeout counts it: whose cancellation it is shows in how many requests are left after taking ours back."""

    __slots__ = ("_fired", "_left", "_others", "_seconds", "_task", "_timer", "expired")

    def __init__(self, seconds: float | None) -> None:
        import asyncio

        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task of asyncio here")
        self._task = task
        self._others = 0
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._fired = self._left = self.expired = False

    def __enter__(self) -> Self:
        self._others = self._task.cancelling()
        if self._seconds is not None:
            self._timer = self._task.get_loop().call_later(max(self._seconds, 0.0), self.cancel)
        return self

    def cancel(self) -> None:
        if not (self._fired or self._left):
            self._fired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._fired or self._task.uncancel() > self._others:
            return False
        import asyncio

        self.expired = kind is not None and issubclass(kind, asyncio.CancelledError)
        return self.expired


class _TrioScope:
    __slots__ = ("_scope", "expired")

    def __init__(self, seconds: float | None) -> None:
        import trio

        self.expired = False
        self._scope = trio.CancelScope() if seconds is None else trio.move_on_after(max(seconds, 0.0))

    def cancel(self) -> None:
        self._scope.cancel()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        caught = self._scope.__exit__(kind, error, trace)  # also true of a block that ended without an error
        self.expired = self._scope.cancelled_caught
        return bool(caught) and error is not None
