"""Host names looked up within a bound: the system's resolver blocks and cannot be stopped, so it gets a thread that nobody waits for."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import Any

__all__ = ["Names"]

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


class Names:
    """Looks up one host, each time anew (a probe has to see what its system's callers see); at most one look-up runs at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._running: asyncio.Future[list[Address]] | None = None

    async def look_up(self) -> list[Address]:
        """Its addresses in the system's order; socket.gaierror where there are none. An address is its own answer."""
        try:
            version = ipaddress.ip_address(self._host).version
        except ValueError:
            return await self._ask()
        if version == 4:  # noqa: PLR2004 - IPv4
            return [(socket.AF_INET, (self._host, self._port))]
        return [(socket.AF_INET6, (self._host, self._port, 0, 0))]

    async def _ask(self) -> list[Address]:
        """Wait for the look-up that runs, or for a new one; whoever stops waiting leaves it to the next."""
        if self._running is None or self._running.done():
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[list[Address]] = loop.create_future()
            self._running = answer
            threading.Thread(
                target=self._resolve, args=(loop, answer), name=f"resolve {self._host}", daemon=True
            ).start()
        return await asyncio.shield(self._running)

    def _resolve(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[Address]]) -> None:
        found: list[Address] | Exception
        try:
            found = [
                (family, where)
                for family, _, _, _, where in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            ]
        except (OSError, UnicodeError) as error:
            found = error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, str(error))

        def tell() -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
                answer.exception()  # seen: nobody may be waiting any more
            else:
                answer.set_result(found)

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop was closed while the name server was silent
            return
