"""The event loop of a data plane: one epoll, one heap of timers, one timerfd, no asyncio.

General layout: `Timer` (what `call_at` gives back), `Loop` (readiness, timers, deferred closing), `TimerFd` (ctypes).
Sockets are closed only after the batch of events in hand, so that a stale event can never reach a new socket that
was given the same number.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Handler = Callable[[int], None]

__all__ = ["ERROR", "HANGUP", "READ", "WRITE", "Loop", "Timer"]

READ, WRITE, ERROR, HANGUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP

_BATCH = 128
_SPIN_SLACK_NS = 50_000
_COMPACT_AT = 1024
_SECOND_NS = 1_000_000_000


class _TimeSpec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class TimerFd:
    """A timer as a file descriptor, set to absolute CLOCK_MONOTONIC times (timerfd_create(2))."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self.fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _TimeSpec()
        self._pointer = ctypes.byref(self._spec)

    def set(self, due_ns: int) -> None:
        """Become readable at this time; a time that has passed is at once."""
        self._spec.value_s, self._spec.value_ns = divmod(max(due_ns, 1), _SECOND_NS)
        self._settime(self.fd, 1, self._pointer, None)

    def clear(self) -> None:
        """Stop being readable."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return


class Timer:
    """One call in the future; `cancel` makes it never happen."""

    __slots__ = ("_loop", "call", "precise")

    def __init__(self, loop: Loop, call: Callable[[], None], *, precise: bool) -> None:
        self._loop = loop
        self.call: Callable[[], None] | None = call
        self.precise = precise

    def cancel(self) -> None:
        """Never call; harmless when it has been called."""
        if self.call is not None:
            self.call = None
            self._loop.forget_one()


class Loop:
    """Calls handlers when sockets are ready and timers when they are due, never before.

    `spin_us`: a precise timer is waited for awake in its last microseconds; `busy_poll_us`: how long the loop stays
    awake after the last event.
    """

    def __init__(self, spin_us: int = 0, busy_poll_us: int = 0) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._masks: dict[int, int] = {}
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = 0
        self._cancelled = 0
        self._armed_ns = 0
        self._spin_ns = spin_us * 1000
        self._busy_ns = busy_poll_us * 1000
        self._later: list[Callable[[], object]] = []
        self._running = False
        self._timer = TimerFd()
        self._epoll.register(self._timer.fd, READ)
        self._handlers[self._timer.fd] = self._tick

    def call_at(self, due_ns: int, call: Callable[[], None], *, precise: bool = False) -> Timer:
        """Call once at this CLOCK_MONOTONIC time; of equal times the first asked is first."""
        timer = Timer(self, call, precise=precise)
        self._sequence += 1
        heapq.heappush(self._heap, (due_ns, self._sequence, timer))
        wake_ns = due_ns - self._spin_ns if precise else due_ns
        if not self._armed_ns or wake_ns < self._armed_ns:
            self._arm(wake_ns)
        return timer

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once after so many seconds."""
        return self.call_at(time.monotonic_ns() + int(seconds * _SECOND_NS), call)

    def forget_one(self) -> None:
        """A timer was cancelled: when most of the heap is such timers, drop them."""
        self._cancelled += 1
        if self._cancelled > _COMPACT_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _arm(self, wake_ns: int) -> None:
        self._armed_ns = wake_ns
        self._timer.set(wake_ns)

    def _arm_for_first(self) -> None:
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        if not self._heap:
            return
        due_ns, _, timer = self._heap[0]
        wake_ns = due_ns - self._spin_ns if timer.precise else due_ns
        if not self._armed_ns or wake_ns < self._armed_ns:
            self._arm(wake_ns)

    def _tick(self, _events: int) -> None:
        self._timer.clear()
        self._armed_ns = 0
        now = time.monotonic_ns
        if self._heap and self._heap[0][2].precise:
            due_ns = self._heap[0][0]
            if due_ns - now() <= self._spin_ns + _SPIN_SLACK_NS:
                while now() < due_ns:
                    pass
        moment_ns = now()
        while self._heap and self._heap[0][0] <= moment_ns:
            call, timer = self._heap[0][2].call, heapq.heappop(self._heap)[2]
            if call is None:
                self._cancelled -= 1
                continue
            timer.call = None
            call()
        self._arm_for_first()

    def handle(self, fd: int, handler: Handler) -> None:
        """Send this descriptor's events to this handler; `want` says which."""
        self._handlers[fd] = handler

    def want(self, fd: int, add: int, remove: int = 0) -> None:
        """Change which events of a descriptor matter; with none left it is out of the epoll, hang-ups included."""
        before = self._masks.get(fd, 0)
        after = (before | add) & ~remove
        if after == before:
            return
        if not before:
            self._epoll.register(fd, after)
        elif after:
            self._epoll.modify(fd, after)
        else:
            self._epoll.unregister(fd)
        self._masks[fd] = after

    def ignore(self, fd: int) -> None:
        """Forget a descriptor."""
        if self._masks.pop(fd, 0):
            self._epoll.unregister(fd)
        self._handlers.pop(fd, None)

    def dispose(self, sock: socket.socket) -> None:
        """Forget a socket and close it when the batch of events in hand is done."""
        self.ignore(sock.fileno())
        self._later.append(sock.close)

    def later(self, call: Callable[[], object]) -> None:
        """Call when the batch of events in hand is done: nobody further up the stack is in the middle of anything then."""
        self._later.append(call)

    def stop(self) -> None:
        """Return from `run` after the batch of events in hand."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        poll, handlers, later = self._epoll.poll, self._handlers, self._later
        busy_ns, now = self._busy_ns, time.monotonic_ns
        last_ns = now()
        while self._running:
            events = poll(0 if busy_ns else -1, _BATCH)
            if not events:
                if now() - last_ns < busy_ns:
                    continue
                events = poll(-1, _BATCH)
            for fd, event in events:
                handler = handlers.get(fd)
                if handler is not None:
                    handler(event)
            if later:
                for call in later:
                    call()
                later.clear()
            if busy_ns:
                last_ns = now()

    def close(self) -> None:
        """Close what the loop itself holds."""
        for call in self._later:
            call()
        self._later.clear()
        os.close(self._timer.fd)
        self._epoll.close()
