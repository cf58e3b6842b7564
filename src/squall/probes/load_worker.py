"""The load's own process: `python -m squall.probes.load_worker`, started by `load.LoadProcess` and by nobody else.

It lives as long as its standard input: the first line there is its order (JSON), a further line "stop" ends it in good
order, end of file ends it at once (its owner is gone). To standard output go frames: one byte of kind, four of length,
then packed samples (`samples.RECORD`), a report (JSON) or the reason why it could not begin. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from squall.probes.generator import Generator
from squall.probes.lateness import late_limit_ns
from squall.probes.load_order import BEGUN, FRAME, ORDER_BYTES_MOST, REFUSED, REPORT, SAMPLES, Order
from squall.probes.samples import RECORD
from squall.probes.schedule import intended_times, segments

if TYPE_CHECKING:
    import ssl

    from squall.probes.generator import Address

__all__ = ["Pipe", "main", "serve"]

FLUSH_NS = 50_000_000
REPORT_NS = 250_000_000
BACKLOG_BYTES_MOST = 32 << 20
"""A million samples; a reader that stands still for longer loses samples, which is counted and said."""
_PIPE_BYTES = 1 << 20
_ADDRESSES_TRIED = 8
_NICE = -10
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29


class Pipe:
    """The generator's sink: batches samples into frames on standard output, without ever blocking the sending."""

    def __init__(self, heard_fd: int, told_fd: int, backlog_bytes_most: int = BACKLOG_BYTES_MOST) -> None:
        self._heard_fd, self._told_fd, self._backlog_bytes_most = heard_fd, told_fd, backlog_bytes_most
        self._records = bytearray()
        self._backlog = bytearray()
        self._said = b""
        self._flush_at = self._report_at = 0
        self.unreported = 0
        self.stopping = False
        self.ended = False
        self.generator: Generator | None = None

    def fileno(self) -> int:
        """Where its owner is heard."""
        return self._heard_fd

    def heard(self) -> None:
        """Read what the owner says: "stop", or the end."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._heard_fd, 4096)
            self._said = (self._said + data)[-4096:]
            self.ended = self.ended or not data
            self.stopping = self.stopping or b"stop\n" in self._said

    def add(self, record: bytes) -> None:
        """Keep one packed sample for the next frame."""
        self._records += record

    def tick(self, now_ns: int) -> int:
        """Write what is due; when to be called again."""
        if now_ns >= self._report_at:
            self._report_at = now_ns + REPORT_NS
            self._flush_at = now_ns
        if now_ns >= self._flush_at:
            self._flush_at = now_ns + FLUSH_NS
            self.flush(report=self._report_at == now_ns + REPORT_NS)
        return self._flush_at if self._records or self._backlog else self._report_at

    def flush(self, *, report: bool) -> None:
        """Frame what there is and write as much of it as the pipe takes."""
        if self._records:
            if len(self._backlog) + len(self._records) > self._backlog_bytes_most:
                self.unreported += len(self._records) // RECORD.size
            else:
                self._backlog += FRAME.pack(SAMPLES, len(self._records)) + self._records
            self._records = bytearray()
        if report and self.generator is not None:
            counts = dataclasses.replace(self.generator.report(), unreported=self.unreported)
            data = json.dumps(dataclasses.asdict(counts)).encode()
            if len(self._backlog) < self._backlog_bytes_most:
                self._backlog += FRAME.pack(REPORT, len(data)) + data
        self.write()

    def say(self, kind: int, data: bytes) -> None:
        """Queue one frame and write."""
        self._backlog += FRAME.pack(kind, len(data)) + data
        self.write()

    def write(self) -> bool:
        """Write what the pipe takes; whether nothing is left."""
        try:
            while self._backlog:
                with memoryview(self._backlog) as view:
                    written = os.write(self._told_fd, view[:_PIPE_BYTES])
                del self._backlog[:written]
        except BlockingIOError:
            return False
        except OSError:  # the reader is gone
            self.ended = True
        return True

    def drain(self, seconds: float) -> None:
        """Write the rest, waiting for the reader at most so long."""
        until = time.monotonic() + seconds
        while not self.write() and time.monotonic() < until:
            time.sleep(0.005)


def main() -> int:
    """Run the load that standard input orders."""
    _become_a_worker()
    order = _read_order(0)
    if order is None:
        return 1
    gc.set_threshold(50_000, 50, 50)  # a request leaves next to no cycles, and a collection makes others late
    return serve(order, 0, 1)


def serve(order: Order, heard_fd: int, told_fd: int) -> int:
    """Do what was ordered until told to stop on one descriptor, saying on the other what came of it; the exit status."""
    os.set_blocking(heard_fd, False)
    os.set_blocking(told_fd, False)
    with contextlib.suppress(OSError):  # over the user's limit of pipe memory: the default size works too
        fcntl.fcntl(told_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    pipe = Pipe(heard_fd, told_fd)
    call = order.call
    try:
        address = _resolve(call.host, call.port)
        context = _tls_context() if call.tls else None
    except (OSError, UnicodeError) as error:
        pipe.say(REFUSED, f"{call.host}:{call.port}: {getattr(error, 'strerror', None) or error}".encode())
        pipe.drain(1.0)
        return 1
    schedule = intended_times(segments(order.steps), order.phase)
    generator = Generator(
        call, address, schedule, timeout_ns=order.timeout_ns, connections=order.connections,
        drain_ns=order.drain_ns,
        late_limit_ns=late_limit_ns(max(rate for rate, _, _ in order.steps)), sink=pipe, context=context,
        marks=order.marks,
    )  # fmt: skip
    pipe.generator = generator
    pipe.say(BEGUN, b"")
    generator.run()
    if not pipe.ended:
        pipe.flush(report=True)
        pipe.drain(1.0)
    return 0


def _become_a_worker() -> None:
    """End with the owner even where standard input is not being looked at; be woken on time; have descriptors enough."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # where it may (root): on a busy machine it is woken in half the time
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _read_order(heard_fd: int) -> Order | None:
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = os.read(heard_fd, 65_536)
        if not piece or len(data) > ORDER_BYTES_MOST:
            return None
        data += piece
    return Order.decode(bytes(data))


def _resolve(host: str, port: int) -> Address:
    """The first address of the host that takes a connection, else the first.

    Looked up once: a load that asked a name server for each request would measure that too.
    """
    found = [(family, where) for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for family, where in found[: _ADDRESSES_TRIED if len(found) > 1 else 0]:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.5)
            sock.connect(where)
            return family, where
    return found[0]


def _tls_context() -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


if __name__ == "__main__":
    sys.exit(main())
