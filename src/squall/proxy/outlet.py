"""The end of a chain: what writes to a socket, and keeps what the socket does not take yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from squall.proxy.loop import WRITE

if TYPE_CHECKING:
    from squall.proxy.flow import Flow
    from squall.proxy.pipes import FilledPipe

__all__ = ["Outlet"]


class Outlet:
    """Writes in order; `done` once the end has been passed on (or can never be)."""

    __slots__ = ("_fd", "_flow", "_send", "done", "ended", "queue", "sent")

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._fd = flow.target.fileno()
        self._send = flow.target.send
        self.queue: deque[bytes | FilledPipe] = deque()
        self.ended = self.done = False
        self.sent = 0

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:  # noqa: ARG002 - what every inlet is given
        """Take the next piece."""
        if self.done:
            self._flow.left(len(data))
            _discard(data)
        elif self.queue:
            self.queue.append(data)
        else:
            self._write(data)

    def _write(self, data: bytes | FilledPipe) -> bool:
        size = len(data)
        try:
            sent = self._send(data) if isinstance(data, bytes) else data.send(self._fd)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._flow.left(size)
            _discard(data)
            self._flow.target_broke()
            return False
        self.sent += sent
        if sent == size:
            self._flow.left(sent)
            return True
        self.queue.appendleft(data[sent:] if isinstance(data, bytes) else data)
        self._flow.loop.want(self._fd, WRITE)
        self._flow.left(sent)
        return False

    def keep(self, rest: bytes | FilledPipe) -> None:
        """Take what the fast path could not write; the caller has counted it as taken."""
        self.queue.append(rest)
        self._flow.loop.want(self._fd, WRITE)

    def writable(self) -> None:
        """The socket takes more."""
        while self.queue:
            if not self._write(self.queue.popleft()):
                return
        self._flow.loop.want(self._fd, 0, WRITE)
        if self.ended and not self.done:
            self._flow.delivered()

    def end(self) -> None:
        """Nothing more comes."""
        if self.ended:
            return
        self.ended = True
        if not self.queue:
            self._flow.delivered()

    def close(self) -> None:
        """Nothing can be, or need be, written any more."""
        self.ended = self.done = True
        while self.queue:
            _discard(self.queue.popleft())


def _discard(data: bytes | FilledPipe) -> None:
    if not isinstance(data, bytes) and data.size:
        data.discard()
