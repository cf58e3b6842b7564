"""Hears whether a client goes away while its request waits, and keeps what it sends meanwhile for the application."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from squall_resilience.running import library

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]

__all__ = ["Listening"]

KEPT_BYTES_MAX = 65_536
"""Of a body; then the client is heard no more, until the application asks for the rest."""
KEPT_MESSAGES_MAX = 1_024


class Listening:
    """Stands for an ASGI `receive`: what came while the request waited comes first."""

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self.gone = False
        """Whether the client went away."""

    async def receive(self) -> Message:
        """The next message."""
        return self._kept.popleft() if self._kept else await self._receive()

    async def _listen(self, gone: Callable[[], None]) -> None:
        size = 0
        with suppress(Exception):  # what goes wrong in receiving meets the application when it asks
            while size <= KEPT_BYTES_MAX and len(self._kept) < KEPT_MESSAGES_MAX:
                message = await self._receive()
                self._kept.append(message)
                if message["type"] == "http.disconnect":
                    self.gone = True
                    gone()
                    return
                size += len(message.get("body", b""))

    @asynccontextmanager
    async def until_gone(self, gone: Callable[[], None]) -> AsyncIterator[None]:
        """A block during which `gone()` is called as soon as the client goes away; nothing may be raised from within."""
        if library() == "asyncio":
            import asyncio

            task = asyncio.create_task(self._listen(gone))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
        else:
            import trio

            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, gone)
                yield
                nursery.cancel_scope.cancel()
