"""Answers some queries by a rule, and passes all others on to the name server they were meant for.

General layout: `Resolver` has a thread that waits on all doors; a datagram that is passed on has a socket of its own
until its answer comes; each connection has a thread (`streams`). What is passed on keeps its bytes, its transport and its
network namespace, and what comes back is passed back as it is. No asyncio: a fault is on twice as fast without it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from squall.workers.dns import message
from squall.workers.dns.doors import Door
from squall.workers.dns.streams import Address, ServerOf, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.workers.dns.doors import Doors
    from squall.workers.dns.rule import Judge

__all__ = ["Resolver"]

_WAITING_MOST = 1024
_STREAMS_MOST = 64
_ANSWER_S = 12.0
"""Nobody waits longer: glibc gives up after 5 s, Go after 5 s, both ask again."""
_TICK_S = 0.1
_STALE_S = 1.0
_TURN_MOST = 64
"""So many datagrams of one door are taken before the others get their turn."""
_MESSAGE_MOST = 65535


class _Passed(NamedTuple):
    """A query on its way: who gets the answer, through which door, and until when he waits."""

    upstream: socket.socket
    door: socket.socket
    client: Address
    query: bytes
    until_s: float


class Resolver:
    """The resolver of all doors. `server_of` says whom a client at a door was asking."""

    def __init__(self, judge: Judge, server_of: ServerOf) -> None:
        self.judge, self._server_of = judge, server_of
        self._poll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._passed: dict[int, _Passed] = {}
        self._streams: set[Stream] = set()
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listen(self._bell, self._obey)
        self._ends, self._seen_s = False, time.monotonic()
        self._thread = threading.Thread(target=self._run, name="squall-dns", daemon=True)
        self._thread.start()

    # --- for the worker's own thread

    @property
    def well(self) -> bool:
        """Whether it goes on answering."""
        return self._thread.is_alive() and time.monotonic() - self._seen_s < _STALE_S

    def serve(self, doors: Doors) -> None:
        """Answer at these doors from now on."""
        self._order(lambda: self._serve(doors))

    def leave(self, doors: Doors) -> None:
        """Answer there no more, and close the doors."""
        self._order(lambda: self._leave(doors))

    def finish(self, seconds: float) -> None:
        """Give the answers that are on their way this long to arrive, then end."""
        deadline = time.monotonic() + seconds
        while self.well and time.monotonic() < deadline and self._owed():
            time.sleep(0.005)
        self._order(self._end)
        self._thread.join(1)

    def _owed(self) -> bool:
        return bool(self._passed) or any(stream.owed for stream in tuple(self._streams))

    def _order(self, what: Callable[[], None]) -> None:
        if not self._thread.is_alive():
            return
        done = threading.Event()
        self._orders.append((what, done))
        os.eventfd_write(self._bell, 1)
        done.wait(5)

    # --- in the resolver's thread

    def _run(self) -> None:
        while not self._ends:
            for fd, _ in self._poll.poll(_TICK_S):
                if fd in self._ready:
                    self._ready[fd]()
            self._seen_s = time.monotonic()
            self._give_up(self._seen_s)
        self._poll.close()
        os.close(self._bell)

    def _listen(self, fd: int, call: Callable[[], None]) -> None:
        self._ready[fd] = call
        self._poll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _obey(self) -> None:
        os.eventfd_read(self._bell)
        while self._orders:
            what, done = self._orders.popleft()
            what()
            done.set()

    def _end(self) -> None:
        self._ends = True

    def _serve(self, doors: Doors) -> None:
        for family, pairs in doors.sockets.items():
            for datagrams, streams in pairs:
                door = Door(doors, family, datagrams.getsockname()[1])
                self._listen(datagrams.fileno(), lambda at=datagrams, door=door: self._datagrams(at, door))  # type: ignore[misc]
                self._listen(streams.fileno(), lambda at=streams, door=door: self._connection(at, door))  # type: ignore[misc]

    def _leave(self, doors: Doors) -> None:
        for pairs in doors.sockets.values():
            for one in (one for pair in pairs for one in pair):
                self._forget(one.fileno())
        doors.close()

    def _datagrams(self, at: socket.socket, door: Door) -> None:
        for _ in range(_TURN_MOST):
            try:
                query, client = at.recvfrom(_MESSAGE_MOST)
            except OSError:
                return
            answer = self.judge.verdict(query)
            if answer:
                _send(at, answer, client)
            elif answer is None and len(self._passed) < _WAITING_MOST:
                self._pass_on(at, door, query, client)

    def _pass_on(self, at: socket.socket, door: Door, query: bytes, client: Address) -> None:
        """One query, one socket: the name server sees a new port each time, as it would without us."""
        server = self._server_of(door, socket.SOCK_DGRAM, client)
        if server is None:
            return
        try:
            upstream = door.upstream(socket.SOCK_DGRAM)
        except OSError:
            return
        passed = _Passed(upstream, at, client, query, time.monotonic() + _ANSWER_S)
        fd = upstream.fileno()
        self._passed[fd] = passed
        self._listen(fd, lambda: self._answered(fd))
        try:
            upstream.connect(server)
            upstream.send(query)
        except OSError:
            self._refused(fd)

    def _answered(self, fd: int) -> None:
        passed = self._passed[fd]
        try:
            answer = passed.upstream.recv(_MESSAGE_MOST)
        except BlockingIOError:
            return
        except OSError:
            self._refused(fd)
            return
        _send(passed.door, answer, passed.client)
        self._close(fd)

    def _refused(self, fd: int) -> None:
        """Nobody listens there. Who asks would have been told by ICMP, which we cannot send: a failure is the nearest."""
        passed = self._passed[fd]
        query = message.read_query(passed.query)
        if query is not None:
            _send(passed.door, message.error(query, message.RCODES["servfail"]), passed.client)
        self._close(fd)

    def _give_up(self, now_s: float) -> None:
        """The first ones have waited longest."""
        late = []
        for fd, passed in self._passed.items():
            if passed.until_s > now_s:
                break
            late.append(fd)
        for fd in late:
            self.judge.count("unanswered")
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._forget(fd)
        self._passed.pop(fd).upstream.close()

    def _connection(self, at: socket.socket, door: Door) -> None:
        try:
            connection, client = at.accept()
        except OSError:
            return
        if len(self._streams) >= _STREAMS_MOST:
            connection.close()
            return
        stream = Stream(connection, client, door, self.judge, self._server_of)
        self._streams.add(stream)
        threading.Thread(target=self._converse, args=(stream,), name="squall-dns-tcp", daemon=True).start()

    def _converse(self, stream: Stream) -> None:
        try:
            stream.run()
        finally:
            self._streams.discard(stream)


def _send(at: socket.socket, data: bytes, client: Address) -> None:
    with contextlib.suppress(OSError):  # who asked may be gone
        at.sendto(data, client)
