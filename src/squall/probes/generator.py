"""The open-loop generator: one epoll loop that sends each request at its intended time, whatever became of earlier ones.

General layout: `Connection` is one connection with at most one request on it (its socket is `transport`'s), `Generator`
owns the clock, the pool of idle connections, the time-outs and the counts. It hands packed records to a `Sink`; that is
the worker's business. Standard library only, since the load's process has to start fast.

The loop sleeps in select(2) on the epoll descriptor: epoll's own time-out is in whole milliseconds, select's in
microseconds.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from squall.probes.lateness import WAITING_MOST, Lateness, LoadReport
from squall.probes.outcomes import LOCAL_LIMITS, of_failure
from squall.probes.samples import OUTCOMES, RECORD
from squall.probes.traceparent import marked
from squall.probes.transport import Plain, Tls
from squall.probes.wire import Answer, Call, Malformed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from squall.probes.samples import Outcome
    from squall.probes.traceparent import Marks
    from squall.probes.transport import Transport

__all__ = ["Generator", "Sink"]

TOO_LATE_NS = 1_000_000_000
"""A request that is due for longer than this when the loop gets to it is not sent: a burst would be an attack, not a load."""
SLEEP_MOST_NS = 200_000_000
_EVENTS_A_TURN = 32
_SENDS_A_TURN = 32
_NEVER = 2**63 - 1
_OK, _UNSENT = OUTCOMES.index("ok"), OUTCOMES.index("unsent")

Address = tuple[int, Any]
"""A socket's family and what its connect() takes."""


class Sink(Protocol):
    """Where the generator's findings go."""

    def add(self, record: bytes) -> None:
        """Take one packed sample."""

    def tick(self, now_ns: int) -> int:
        """Do what is due; return when (CLOCK_MONOTONIC) to be called again at the latest."""

    @property
    def stopping(self) -> bool:
        """No more requests are wanted."""

    @property
    def ended(self) -> bool:
        """Whoever wanted the samples is gone."""

    def fileno(self) -> int:
        """The descriptor that is readable when `heard` should be called."""

    def heard(self) -> None:
        """Read what was said to the load."""


class Connection:
    """One connection and the request that is on it."""

    __slots__ = ("answer", "fd", "idle", "intended_ns", "left", "ready", "transport")

    def __init__(self, fd: int, transport: Transport, *, head: bool) -> None:
        self.fd, self.transport = fd, transport
        self.answer = Answer(head=head)
        self.intended_ns = 0
        self.left: memoryview | bytes = b""
        """What has not been sent yet."""
        self.ready = False
        """Connected (and agreed on TLS)."""
        self.idle = False

    def send(self) -> int:
        """Send what is left; return the epoll events to wait for."""
        sent, events = self.transport.send(self.left)
        self.left = memoryview(self.left)[sent:] if sent < len(self.left) else b""
        return events


class Generator:
    """Sends `call` to `address` at the times of `schedule` (ns after the start)."""

    def __init__(
        self, call: Call, address: Address, schedule: Iterator[int], *,
        timeout_ns: int, connections: int, drain_ns: int, late_limit_ns: int, sink: Sink,
        context: ssl.SSLContext | None = None,
        marks: Marks | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        self._call, self._address, self._schedule, self._marks = call, address, schedule, marks
        self._timeout_ns, self._connections, self._drain_ns = timeout_ns, connections, drain_ns
        self._sink, self._context, self._clock = sink, context, clock
        self._epoll = select.epoll()
        self._by_fd: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._busy: dict[Connection, None] = {}
        """Requests in flight, oldest intended time first."""
        self._check_at = _NEVER
        """No request in flight times out before this."""
        self.lateness = Lateness(late_limit_ns)
        self.sent = self.answered = self.unsent_full = self.unsent_late = self.unsent_local = self.abandoned = 0
        self._start_ns = self._cpu_start_ns = 0
        self._finished = False

    def run(self) -> None:
        """Send until the sink says stop, then wait at most `drain_ns` for answers; return early when the sink has ended."""
        sink, clock = self._sink, self._clock
        self._epoll.register(sink.fileno(), select.EPOLLIN)
        self._start_ns, self._cpu_start_ns = clock(), time.process_time_ns()
        due, until = self._next_due(), _NEVER
        while not sink.ended:
            now = clock()
            if sink.stopping and until == _NEVER:
                due, until = _NEVER, now + self._drain_ns
            if until != _NEVER and (now >= until or not self._busy):
                break
            for _ in range(_SENDS_A_TURN):
                if due > now:
                    break
                self._fire(due, now)
                due, now = self._next_due(), clock()
            if now >= self._check_at:
                self._time_out(now)
            tick_at = sink.tick(now)
            self._wait(min(due, self._check_at, tick_at, until))
        self.abandoned, self._finished = len(self._busy), True
        for connection in list(self._by_fd.values()):
            self._drop(connection)
        self._epoll.close()

    def report(self) -> LoadReport:
        """The counts as they are now."""
        now, late = self._clock(), self.lateness
        oldest = next(iter(self._busy), None)
        return LoadReport(
            sent=self.sent, answered=self.answered, in_flight=len(self._busy),
            oldest_ns=now - oldest.intended_ns if oldest else 0,
            waiting=tuple(connection.intended_ns for connection in islice(self._busy, WAITING_MOST)),
            unsent_full=self.unsent_full, unsent_late=self.unsent_late, unsent_local=self.unsent_local,
            abandoned=self.abandoned, late=late.late, late_limit_ns=late.limit_ns,
            late_p50_ns=late.quantile(0.5), late_p99_ns=late.quantile(0.99),
            late_max_ns=late.most_ns, cpu_ns=time.process_time_ns() - self._cpu_start_ns, wall_ns=now - self._start_ns,
            final=self._finished,
        )  # fmt: skip

    def _next_due(self) -> int:
        offset = next(self._schedule, None)
        return _NEVER if offset is None else self._start_ns + offset

    def _wait(self, until_ns: int) -> None:
        """Sleep until something can be read or written, at most to `until_ns`, and deal with it."""
        left = min(until_ns - self._clock(), SLEEP_MOST_NS)
        if left > 0:
            select.select([self._epoll], [], [], left / 1e9)
        for fd, events in self._epoll.poll(0, _EVENTS_A_TURN):
            connection = self._by_fd.get(fd)
            if connection is not None:
                self._serve(connection, events)
            elif fd == self._sink.fileno():
                self._sink.heard()

    # --- sending

    def _fire(self, intended_ns: int, now_ns: int) -> None:
        """Send the request that was due at `intended_ns`, or count it as unsent and say why."""
        if now_ns - intended_ns > TOO_LATE_NS:
            self.unsent_late += 1
            self._unsent(intended_ns, errno.EBUSY)
            return
        if len(self._busy) >= self._connections:
            self.unsent_full += 1
            self._unsent(intended_ns, errno.EAGAIN)
            return
        connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect()
        except OSError as error:
            if error.errno in LOCAL_LIMITS:
                self.unsent_local += 1
                self._unsent(intended_ns, error.errno or 0)
                return
            self._sent(intended_ns, now_ns)
            self._answered(intended_ns, *of_failure(error))
            return
        data = self._call.data if self._marks is None else marked(self._call.data, self._marks.header(intended_ns))
        connection.idle, connection.intended_ns, connection.left = False, intended_ns, data
        self._busy[connection] = None
        self._check_at = min(self._check_at, intended_ns + self._timeout_ns)
        self._sent(intended_ns, now_ns)
        if connection.ready:
            self._guarded(connection, self._transmit)

    def _connect(self) -> Connection:
        """A new connection under way."""
        family, address = self._address
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(BlockingIOError):  # EINPROGRESS, as it should be
                sock.connect(address)
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
        except BaseException:
            sock.close()
            raise
        transport: Transport = Plain(sock) if self._context is None else Tls(sock, self._context, self._call.host)
        connection = Connection(sock.fileno(), transport, head=self._call.head)
        self._by_fd[connection.fd] = connection
        return connection

    def _transmit(self, connection: Connection) -> None:
        events = connection.send()
        if events != select.EPOLLIN:
            self._epoll.modify(connection.fd, events)

    # --- what comes back

    def _serve(self, connection: Connection, events: int) -> None:
        if connection.idle:  # the server ends an idle connection, or says something unasked
            self._idle.remove(connection)
            self._drop(connection)
        elif not connection.ready:
            self._guarded(connection, self._advance)
        else:
            if events & select.EPOLLOUT and connection.left:
                self._guarded(connection, self._resume)
            if events & ~select.EPOLLOUT and connection.fd in self._by_fd:
                self._guarded(connection, self._read)

    def _advance(self, connection: Connection) -> None:
        events = connection.transport.advance()
        if events:
            self._epoll.modify(connection.fd, events)
            return
        connection.ready = True
        self._epoll.modify(connection.fd, select.EPOLLIN)
        self._transmit(connection)

    def _resume(self, connection: Connection) -> None:
        self._epoll.modify(connection.fd, connection.send())

    def _read(self, connection: Connection) -> None:
        data = connection.transport.receive()
        if data is None:
            return
        answer = connection.answer
        if data:
            answer.feed(data)
        else:
            answer.end()
        if not answer.done:
            return
        outcome: Outcome = "ok" if answer.status in self._call.success else "error"
        del self._busy[connection]
        self._answered(connection.intended_ns, outcome, answer.status)
        if answer.reusable and data and not connection.left:
            answer.reset()
            connection.idle = True
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _guarded(self, connection: Connection, step: Callable[[Connection], None]) -> None:
        """Do a step of an exchange; where it fails, the request has failed and the connection goes."""
        try:
            step(connection)
        except (OSError, Malformed) as error:
            if connection in self._busy:
                del self._busy[connection]
                self._answered(connection.intended_ns, *of_failure(error))
            self._drop(connection)

    def _time_out(self, now_ns: int) -> None:
        """Give up what has been in flight for too long; requests are in the order of their intended times."""
        while self._busy:
            connection = next(iter(self._busy))
            if connection.intended_ns + self._timeout_ns > now_ns:
                self._check_at = connection.intended_ns + self._timeout_ns
                return
            del self._busy[connection]
            self._answered(connection.intended_ns, "timeout", errno.ETIMEDOUT)
            self._drop(connection)
        self._check_at = _NEVER

    def _drop(self, connection: Connection) -> None:
        self._by_fd.pop(connection.fd, None)
        connection.transport.close()  # leaves epoll with its last descriptor

    # --- counting

    def _sent(self, intended_ns: int, now_ns: int) -> None:
        self.sent += 1
        self.lateness.add(now_ns - intended_ns)

    def _unsent(self, intended_ns: int, detail: int) -> None:
        self._sink.add(RECORD.pack(intended_ns, 0, 0.0, 0, _UNSENT, detail))

    def _answered(self, intended_ns: int, outcome: Outcome, detail: int) -> None:
        self.answered += 1
        code = _OK if outcome == "ok" else OUTCOMES.index(outcome)
        self._sink.add(RECORD.pack(intended_ns, max(self._clock() - intended_ns, 0), 0.0, 0, code, detail))
