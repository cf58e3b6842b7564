"""A direction of an HTTP/2 connection as bytes: whole frames found in them, what goes on gathered and sent in one piece."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from squall.proxy.http.heads import NotHttp
from squall.proxy.http2 import frames
from squall.proxy.http2.frames import HEAD_BYTES, PREFACE, read_frame
from squall.proxy.toxics.stage import as_bytes

if TYPE_CHECKING:
    from squall.proxy.flow import Flow
    from squall.proxy.http2.conversation import Http2
    from squall.proxy.http2.lanes import Lane
    from squall.proxy.loop import Timer
    from squall.proxy.pipes import FilledPipe
    from squall.proxy.toxics import Inlet

__all__ = ["FrameStream", "OpenBlock"]

_HEADS_AT_ONCE: Final = 256
"""After so many the other connections have their turn."""
_CROWDED_WAIT_S: Final = 0.01


@dataclass(slots=True)
class OpenBlock:
    """A header block that is not whole yet, as it came and without its frames."""

    stream: int
    flags: int
    raw: bytes
    block: bytes
    frames: int = 1


class FrameStream:
    """What is done with a frame is for `_passes` and `_take`; `_out` is what goes on, in order."""

    takes_pipes = False
    stamped = True
    next: Inlet

    def __init__(self, talk: Http2, flow: Flow, *, has_preface: bool) -> None:
        self.talk, self.flow = talk, flow
        self.opposite: Flow = flow.reverse
        self.busy: set[Lane] = set()
        self.closed = False
        self._data = b""
        self._backlog: list[bytes] = []
        self._out: list[bytes] = []
        self._early: list[bytes] = []
        self._stamp_ns = 0
        self._preface = has_preface
        self._begun = self._ended = self._end_sent = self._advancing = self._fresh = False
        self._open: OpenBlock | None = None
        self._timer: Timer | None = None
        self._heads_left = 0

    # In the chain

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        """Take the next bytes."""
        self._stamp_ns, self._fresh = stamp_ns, True
        if self._timer is not None:
            self._backlog.append(as_bytes(data))
            return
        self._data = self._data + as_bytes(data) if self._data else as_bytes(data)
        self.advance()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        if self._timer is None:
            self.talk.settle()

    def close(self) -> None:
        """The connection is gone."""
        self.closed = True
        for lane in self.busy:
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            lane.queue.clear()
        self.busy.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._data, self._backlog, self._out, self._early, self._open = b"", [], [], [], None

    # Finding frames

    def advance(self) -> None:
        """Go as far as the bytes in hand allow."""
        if self._advancing or self._timer is not None or self.closed:
            return
        if self.opposite.crowded():  # by answers that the sender of this makes us send and nobody takes
            self._wait(_CROWDED_WAIT_S)
            return
        self._advancing, self._heads_left = True, _HEADS_AT_ONCE
        try:
            self._find()
        except NotHttp:
            self.talk.give_up()
        finally:
            self._advancing = False
        self.talk.settle()

    def _wait(self, seconds: float) -> None:
        def again() -> None:
            self._timer = None
            self._data += b"".join(self._backlog)
            self._backlog.clear()
            self.advance()

        self._timer = self.flow.loop.call_later(seconds, again)

    def _find(self) -> None:  # noqa: C901 - one loop over the bytes in hand
        data, at, start = self._data, 0, 0
        size = len(data)
        if self._preface:
            if not data.startswith(PREFACE):
                if not PREFACE.startswith(data):
                    raise NotHttp
                return
            self._preface, at = False, len(PREFACE)
        try:
            while size - at >= HEAD_BYTES:
                length, kind, flags, number = read_frame(data, at)
                if length > frames.FRAME_BYTES_MOST:
                    raise NotHttp
                end = at + HEAD_BYTES + length
                if end > size:
                    break
                if not self._passes(kind, flags, number, data, at, end):
                    self._again(data[start:at])
                    start = at
                    self._take(kind, flags, number, data[at:end])
                    start = end
                    if self.closed or self.talk.gone:
                        return
                at = end
                if self._heads_left <= 0:
                    self._wait(0)
                    break
            self._again(data[start:at])
            start = at
        finally:
            if not self.closed:
                self._data = data[start:]

    def _passes(self, kind: int, flags: int, number: int, data: bytes, at: int, end: int) -> bool:
        """Whether a frame goes on as it came with nothing else to do."""
        raise NotImplementedError

    def _take(self, kind: int, flags: int, number: int, raw: bytes) -> None:
        """A frame that is more than bytes; NotHttp."""
        raise NotImplementedError

    # What goes in this direction

    def _again(self, raw: bytes) -> None:
        """What came goes on."""
        if raw:
            self._out.append(raw)

    def emit(self, data: bytes) -> None:
        """Bytes of ours go on."""
        if not self.closed:
            self.flow.taken(len(data))
            (self._out if self._begun else self._early).append(data)

    def begin(self, data: bytes, size: int) -> None:
        """The settings with which a side begins, in place of a frame of so many bytes: nothing may go before them."""
        self._begun = True
        self.emit(data)
        self.flow.left(size)
        self._out += self._early
        self._early.clear()

    def flush(self) -> None:
        """Send what has been gathered, and the end when nothing waits."""
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            stamp_ns = self._stamp_ns if self._fresh else time.monotonic_ns()
            self._fresh = False
            self.next.feed(data, stamp_ns)
        if self._ended and not self._end_sent and not self.busy and self._timer is None and not self.closed:
            self._end_sent = True
            rest = (self._open.raw if self._open is not None else b"") + self._data
            self._data, self._open = b"", None
            if rest:
                self.next.feed(rest, time.monotonic_ns())
            if not self.closed:
                self.next.end()

    def let_go(self) -> None:
        """Stop following: everything in hand goes on as it came."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        opened = self._open.raw if self._open is not None else b""
        rest = b"".join([*self._out, opened, self._data, *self._backlog])
        self._data, self._backlog, self._out, self._open = b"", [], [], None
        if rest:
            self.next.feed(rest, time.monotonic_ns())
        if self._ended and not self._end_sent and not self.closed:
            self._end_sent = True
            self.next.end()
