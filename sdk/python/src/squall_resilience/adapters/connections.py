"""A bounded pool of connections of the standard library's HTTP client: in all and for each host, waited for in order.

Its sizes and times change live. Growing lets those who wait go on at once; shrinking closes what is idle and too many, and
the others when they come back.
"""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import ssl
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from squall_resilience.adapters.bounded_sockets import BoundedSocket, BoundedSSLSocket, bounded
from squall_resilience.adapters.http_rules import NotSent
from squall_resilience.deadline import at_most

if TYPE_CHECKING:
    from squall_resilience.client import ClientSettings

__all__ = ["ConnectTimeout", "Connections", "Lease", "NotConnected", "Place"]

UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})


class Place(NamedTuple):
    """Where connections lead to."""

    scheme: str
    host: str
    port: int


class NotConnected(ConnectionRefusedError):
    """No connection could be opened, so nothing was sent."""


class ConnectTimeout(NotConnected, TimeoutError):
    """None could be opened in time."""


class Lease:
    """One connection in use, or the right to open one."""

    def __init__(self, place: Place, connection: http.client.HTTPConnection | None = None) -> None:
        self.place = place
        self.connection = connection
        self.reused = connection is not None
        self.since = 0.0


class _Waiting:
    """Who stands in line."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lease: Lease | None = None
        self.called = threading.Event()


class Connections:
    """The pool; safe from any thread. A child after a fork opens its own."""

    def __init__(self, settings: ClientSettings, context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._context = context or ssl.create_default_context()
        if self._context.sslsocket_class is ssl.SSLSocket:
            self._context.sslsocket_class = BoundedSSLSocket
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._own: dict[Place, ClientSettings] = {}
        self._idle: dict[Place, deque[Lease]] = {}
        self._open: dict[Place, int] = {}
        self._line: deque[_Waiting] = deque()
        self._pid = os.getpid()
        self._closed = False

    def configure(self, settings: ClientSettings) -> None:
        """Take new sizes and times."""
        with self._lock:
            self._settings = settings
            surplus = self._surplus()
            self._serve()
        _close(surplus)

    def close(self) -> None:
        """Close what is idle now, and the others when they come back."""
        with self._lock:
            self._closed = True
            surplus = [lease for waiting in self._idle.values() for lease in waiting]
            self._idle.clear()
            for lease in surplus:
                self._forget(lease.place)
        _close(surplus)

    @property
    def figures(self) -> dict[str, int]:
        """How many are open, idle, and waited for."""
        with self._lock:
            idle = sum(len(each) for each in self._idle.values())
            return {"open": sum(self._open.values()), "idle": idle, "waiting": len(self._line)}

    def take(self, place: Place, settings: ClientSettings | None = None) -> Lease:
        """A connection that seems to be alive, else one that is opened now; given back by `give_back` or `drop`.

        `settings`: this place's own, in place of the pool's; of them the number of connections in all is passed over.
        Raises NotSent when all are in use for longer than `pool_timeout`, OSError when none can be opened.
        """
        if self._pid != os.getpid():
            self._begin()
        return self._ready(self._reserve(place, settings))

    def take_new(self, place: Place, settings: ClientSettings | None = None) -> Lease:
        """One that is opened now, whatever is kept: kept ones to this place may all be as dead as the last."""
        with self._lock:
            stale = list(self._idle.pop(place, ()))
            for _ in stale:
                self._forget(place)
            self._serve()
        _close(stale)
        return self._ready(self._reserve(place, settings))

    def _ready(self, lease: Lease) -> Lease:
        place = lease.place
        if lease.connection is None:
            try:
                lease.connection = self._connect(place)
            except BaseException:
                self.drop(lease)
                raise
        settings, sock = self._of(place), lease.connection.sock
        if isinstance(sock, (BoundedSocket, BoundedSSLSocket)):
            sock.read_seconds, sock.write_seconds = settings.read_timeout, settings.write_timeout
        return lease

    def give_back(self, lease: Lease) -> None:
        """It may be used again."""
        if self._pid != os.getpid():
            _close([lease])
            return
        with self._lock:
            lease.since = monotonic()
            if self._closed:
                self._forget(lease.place)
                surplus = [lease]
            else:
                self._idle.setdefault(lease.place, deque()).append(lease)
                surplus = self._surplus()
                self._serve()
        _close(surplus)

    def drop(self, lease: Lease) -> None:
        """It is of no use any more."""
        if self._pid == os.getpid():
            with self._lock:
                self._forget(lease.place)
                self._serve()
        _close([lease])

    def _reserve(self, place: Place, settings: ClientSettings | None) -> Lease:
        with self._lock:
            if settings is None:
                self._own.pop(place, None)
            else:
                self._own[place] = settings
            stale, lease = self._try(place)
            waiting = _Waiting(place)
            if lease is None:
                self._line.append(waiting)
        _close(stale)
        if lease is not None:
            return lease
        seconds = at_most(self._of(place).pool_timeout)
        try:
            waiting.called.wait(seconds)
        except BaseException:
            self._leave(waiting)
            if waiting.lease is not None:
                self.drop(waiting.lease)
            raise
        self._leave(waiting)
        if waiting.lease is None:
            raise NotSent(
                f"no connection to {place.host}:{place.port} was free within {seconds:g} s: at most"
                f" {self._of(place).per_host} to this host and {self._settings.connections} in all"
            )
        return waiting.lease

    def _of(self, place: Place) -> ClientSettings:
        return self._own.get(place, self._settings)

    def _leave(self, waiting: _Waiting) -> None:
        with self._lock:
            if waiting.lease is None:
                self._line.remove(waiting)

    # below here: the lock is held

    def _try(self, place: Place) -> tuple[list[Lease], Lease | None]:
        """Connections to close, and a lease if there is room."""
        stale: list[Lease] = []
        idle = self._idle.get(place)
        while idle:
            lease = idle.pop()  # the one used last is the likeliest to be alive
            if monotonic() - lease.since <= self._of(place).idle and not _is_over(lease):
                lease.reused = True
                return stale, lease
            self._forget(place)
            stale.append(lease)
        if self._open.get(place, 0) >= self._of(place).per_host:
            return stale, None
        if sum(self._open.values()) >= self._settings.connections:
            oldest = min((each[0] for each in self._idle.values() if each), key=lambda each: each.since, default=None)
            if oldest is None:
                return stale, None
            self._idle[oldest.place].popleft()
            self._forget(oldest.place)
            stale.append(oldest)
        self._open[place] = self._open.get(place, 0) + 1
        return stale, Lease(place)

    def _serve(self) -> None:
        """Hand what is free to those who wait, the first one first; one who cannot be served holds nobody else up."""
        for waiting in list(self._line):
            stale, lease = self._try(waiting.place)
            _close(stale)
            if lease is not None:
                self._line.remove(waiting)
                waiting.lease = lease
                waiting.called.set()

    def _surplus(self) -> list[Lease]:
        """Take out what is idle for too long, or too many."""
        surplus: list[Lease] = []
        now = monotonic()
        for place, idle in list(self._idle.items()):
            while idle and (
                now - idle[0].since > self._of(place).idle or self._open.get(place, 0) > self._of(place).per_host
            ):
                surplus.append(idle.popleft())
                self._forget(place)
        while sum(self._open.values()) > self._settings.connections:
            places = [each for each in self._idle.values() if each]
            if not places:
                break
            lease = min(places, key=lambda each: each[0].since).popleft()
            surplus.append(lease)
            self._forget(lease.place)
        self._idle = {place: idle for place, idle in self._idle.items() if idle}
        return surplus

    def _forget(self, place: Place) -> None:
        left = self._open.get(place, 0) - 1
        if left > 0:
            self._open[place] = left
        else:
            self._open.pop(place, None)

    # without the lock

    def _connect(self, place: Place) -> http.client.HTTPConnection:
        seconds = at_most(self._of(place).connect_timeout)
        if seconds is not None and seconds <= 0.0:
            raise TimeoutError("the deadline has passed")
        where = f"{place.host}:{place.port}"
        try:
            return self._opened(place, seconds)
        except TimeoutError as error:
            raise ConnectTimeout(f"no connection to {where} within {seconds:g} s") from error
        except socket.gaierror as error:
            raise NotConnected(f"{where}: {error.strerror}") from error
        except OSError as error:
            if error.errno in UNREACHABLE:
                raise NotConnected(error.errno, f"{error.strerror}: {where}") from error
            raise

    def _opened(self, place: Place, seconds: float | None) -> http.client.HTTPConnection:
        if place.scheme == "https":
            secure = http.client.HTTPSConnection(place.host, place.port, timeout=seconds, context=self._context)
            secure.connect()
            return secure
        plain = http.client.HTTPConnection(place.host, place.port, timeout=seconds)
        plain.connect()
        plain.sock = bounded(plain.sock)
        return plain


def _is_over(lease: Lease) -> bool:
    """Whether the other side has closed it, or sent what nobody asked for."""
    sock = None if lease.connection is None else lease.connection.sock
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _close(leases: list[Lease]) -> None:
    for lease in leases:
        if lease.connection is not None:
            lease.connection.close()
