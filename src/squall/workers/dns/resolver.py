"""Answers some queries by a rule, and passes all others on to the name server they were meant for.

General layout: `Resolver` runs all doors in a thread of its own; a datagram that is passed on has a socket of its own
(`_pass_on`), a connection one to the name server behind it (`_Onward`). What is passed on keeps its bytes, its transport
and its network namespace, and what comes back is passed back as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.workers.dns import message
from squall.workers.dns.doors import Door

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from squall.workers.dns.doors import Doors
    from squall.workers.dns.rule import Judge

__all__ = ["Resolver", "Server"]

Address = tuple[Any, ...]
"""As the socket module has it."""
ServerOf = Callable[["Door", int, Address], "Server | None"]
"""Whom this client, at this door, by datagrams or a stream, was asking; None where nobody knows."""

_WAITING_MOST = 1024
_ANSWER_S = 12.0
"""Nobody waits longer: glibc gives up after 5 s, Go after 5 s, both ask again."""
_IDLE_S = 30.0
_STALE_S = 1.0
_MESSAGE_MOST = 65535


class Server(NamedTuple):
    """A name server, as a socket's address."""

    host: str
    port: int


class Resolver:
    """The resolver of all doors, in a thread of its own. `server_of` says whom a client at a door was asking."""

    def __init__(self, judge: Judge, server_of: ServerOf) -> None:
        self.judge, self._server_of = judge, server_of
        self._loop = asyncio.new_event_loop()
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._seen_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="squall-dns", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._tick)
        self._loop.run_forever()

    def _tick(self) -> None:
        self._seen_s = time.monotonic()
        self._loop.call_later(_STALE_S / 10, self._tick)

    @property
    def well(self) -> bool:
        """Whether it goes on answering."""
        return self._thread.is_alive() and time.monotonic() - self._seen_s < _STALE_S

    def serve(self, doors: Doors) -> None:
        """Answer at these doors from now on."""
        asyncio.run_coroutine_threadsafe(self._serve(doors), self._loop).result(5)

    def finish(self, seconds: float) -> None:
        """Give what is on its way this long to arrive, then end."""
        deadline = time.monotonic() + seconds
        while self._tasks and self.well and time.monotonic() < deadline:
            time.sleep(0.005)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1)

    def leave(self, doors: Doors) -> None:
        """Answer there no more, and close the doors."""
        asyncio.run_coroutine_threadsafe(self._leave(doors), self._loop).result(5)

    async def _leave(self, doors: Doors) -> None:
        for server in self._servers.pop(doors.fd, ()):
            server.close()
        for pairs in doors.sockets.values():
            for datagrams, _ in pairs:
                self._loop.remove_reader(datagrams)
        doors.close()

    async def _serve(self, doors: Doors) -> None:
        servers = self._servers.setdefault(doors.fd, [])
        for family, pairs in doors.sockets.items():
            for datagrams, streams in pairs:
                where = Door(doors, family, datagrams.getsockname()[1])
                self._loop.add_reader(datagrams, self._datagrams, datagrams, where)
                servers.append(await asyncio.start_server(functools.partial(self._stream, where), sock=streams))

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- datagrams

    def _datagrams(self, door: socket.socket, where: Door) -> None:
        for _ in range(64):  # the others get their turn
            try:
                data, client = door.recvfrom(_MESSAGE_MOST)
            except OSError:
                return
            answer = self.judge.verdict(data)
            if answer:
                _send(door, answer, client)
            elif answer is None and len(self._tasks) < _WAITING_MOST:
                self._begin(self._pass_on(door, where, data, client))

    async def _pass_on(self, door: socket.socket, where: Door, data: bytes, client: Address) -> None:
        """One query, one socket: the name server sees a new port each time, as it would without us."""
        server = self._server_of(where, socket.SOCK_DGRAM, client)
        if server is None:
            return
        try:
            upstream = where.upstream(socket.SOCK_DGRAM)
        except OSError:
            return
        with upstream:
            try:
                upstream.connect(server)
                upstream.send(data)
                async with asyncio.timeout(_ANSWER_S):
                    _send(door, await self._loop.sock_recv(upstream, _MESSAGE_MOST), client)
            except TimeoutError:
                self.judge.counts["unanswered"] += 1
            except OSError:  # nobody listens there: who asks would have been told by ICMP, which we cannot send
                query = message.read_query(data)
                if query is not None:
                    _send(door, message.error(query, message.RCODES["servfail"]), client)

    # --- connections

    async def _stream(self, where: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        onward, client = _Onward(where, writer), writer.get_extra_info("peername")
        try:
            while True:
                asked = await _framed(reader)
                if asked is None:
                    break
                answer = self.judge.verdict(asked)
                if answer:
                    writer.write(struct.pack(">H", len(answer)) + answer)
                elif answer is None and not await onward.send(
                    asked, self._server_of(where, socket.SOCK_STREAM, client)
                ):
                    break
            await onward.drained()
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            onward.close()
            writer.close()


class _Onward:
    """The connection to the name server behind one of a client's, made with the first query that is passed on."""

    def __init__(self, where: Door, client: asyncio.StreamWriter) -> None:
        self._where, self._client = where, client
        self._writer: asyncio.StreamWriter | None = None
        self._back: asyncio.Task[None] | None = None
        self._open = 0
        self._arrived = asyncio.Event()

    async def send(self, asked: bytes, server: Server | None) -> bool:
        """Pass a query on; False where there is nobody."""
        if server is None:
            return False
        if self._writer is None:
            upstream = self._where.upstream(socket.SOCK_STREAM)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await asyncio.get_running_loop().sock_connect(upstream, server)
            except (OSError, TimeoutError):
                upstream.close()
                raise
            reader, self._writer = await asyncio.open_connection(sock=upstream)
            self._back = asyncio.create_task(self._bring_back(reader))
        self._open += 1
        self._writer.write(struct.pack(">H", len(asked)) + asked)
        return True

    async def _bring_back(self, reader: asyncio.StreamReader) -> None:
        while (answer := await _framed(reader)) is not None:
            self._client.write(struct.pack(">H", len(answer)) + answer)
            self._open -= 1
            self._arrived.set()
        self._open = 0
        self._arrived.set()
        self._client.close()

    async def drained(self) -> None:
        """Wait for the answers that are still to come: a client may end its own side after it has asked."""
        async with asyncio.timeout(_ANSWER_S):
            while self._open > 0:
                self._arrived.clear()
                await self._arrived.wait()

    def close(self) -> None:
        """End it."""
        if self._back is not None:
            self._back.cancel()
        if self._writer is not None:
            self._writer.close()


async def _framed(reader: asyncio.StreamReader) -> bytes | None:
    """The next message of a stream (RFC 1035, 4.2.2); None at its end or when nothing comes."""
    try:
        async with asyncio.timeout(_IDLE_S):
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        return None


def _send(door: socket.socket, data: bytes, client: Address) -> None:
    with contextlib.suppress(OSError):  # who asked may be gone
        door.sendto(data, client)
