"""One direction of an HTTP/2 connection: what is done with each kind of frame.

General layout: what passes at a glance, then one method a kind of frame, then what the proxy itself sends.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from squall.proxy.http.heads import HEAD_MOST, NotHttp
from squall.proxy.http2 import frames
from squall.proxy.http2.blocks import Blocks
from squall.proxy.http2.frames import HEAD_BYTES, content_of
from squall.proxy.http2.framestream import FrameStream, OpenBlock
from squall.proxy.http2.heads import is_interim
from squall.proxy.http2.hpack import TABLE_BYTES_MOST
from squall.proxy.http2.lanes import Item

if TYPE_CHECKING:
    from squall.proxy.flow import Flow
    from squall.proxy.http2.conversation import Http2
    from squall.proxy.http2.hpack import Fields
    from squall.proxy.http2.lanes import Lane, Stream

__all__ = ["Side"]

_CONTINUATIONS_MOST: Final = 64
_FRAMES_HELD_BYTES: Final = 9 << 20
_PRIORITY_BYTES: Final = 5


class Side(FrameStream):
    """`is_up`: from the client to the service. `other` is the opposite direction."""

    other: Side

    def __init__(self, talk: Http2, flow: Flow, body_most: int, *, is_up: bool) -> None:
        super().__init__(talk, flow, has_preface=is_up)
        self.body_most, self.is_up = body_most, is_up
        self.capacity = 4 * HEAD_MOST + body_most + _FRAMES_HELD_BYTES
        self.streams: dict[int, Stream] = {}
        """By the sender's numbers."""
        self.blocks = Blocks()
        self.window = self.initial = frames.DEFAULT_WINDOW
        """What is left of the receiver's window of the connection; how large its streams' are when they begin."""
        self.debt = 0
        """How much of what the receiver will grant is not the sender's any more."""
        self.give_back = self.credited = self.collected = 0
        """What the sender is to have back of the connection's window; what it had back and waits here; bodies in hand."""
        self.starved: dict[Lane, None] = {}
        self._windows: deque[int | None] = deque()
        """Initial windows that the receiver said and the sender has not acknowledged."""

    def _passes(self, kind: int, flags: int, number: int, data: bytes, at: int, end: int) -> bool:
        """Whether a frame goes on as it came with nothing else to do; what it does to windows is counted."""
        if self._open is not None or not self._begun:
            return False
        if kind == frames.DATA:
            return self._passes_data(flags, number, end - at - HEAD_BYTES)
        if kind == frames.WINDOW_UPDATE and end - at == HEAD_BYTES + 4:
            return self._passes_update(number, int.from_bytes(data[at + HEAD_BYTES : end]))
        return kind == frames.PING

    def _passes_update(self, number: int, granted: int) -> bool:
        other = self.other
        if not number:
            if other.debt or other.starved:
                return False
            other.window += granted
            return True
        stream = self.streams.get(number)
        if stream is None:
            return not self.talk.changed
        lane = other.lane_of(stream)
        if stream.server != stream.client or lane.ours or lane.dead:
            return False
        lane.window += granted
        return True

    def _passes_data(self, flags: int, number: int, size: int) -> bool:
        stream = self.streams.get(number)
        if stream is None:
            if self.talk.changed:
                return False
            self.window -= size
            return True
        lane = self.lane_of(stream)
        if not lane.plain or stream.server != stream.client or (self.debt and size > self.window):
            return False
        self.window -= size
        lane.window -= size
        if flags & frames.END_STREAM:
            lane.ended = lane.done = True
            self.talk.lane_done(lane)
        return True

    def _take(self, kind: int, flags: int, number: int, raw: bytes) -> None:
        """A frame that is more than bytes."""
        if self._open is not None or kind == frames.CONTINUATION:
            self._continue(kind, flags, number, raw)
        elif not self._begun and (kind != frames.SETTINGS or flags & frames.ACK):
            raise NotHttp
        elif kind == frames.DATA:
            self._take_data(flags, number, raw)
        elif kind == frames.HEADERS:
            self._take_headers(flags, number, raw)
        elif kind == frames.SETTINGS:
            self._take_settings(flags, raw)
        elif kind == frames.WINDOW_UPDATE:
            self._take_update(number, raw)
        elif kind == frames.RST_STREAM:
            self._take_reset(number, raw)
        elif kind == frames.GOAWAY and not self.is_up:
            self.talk.going_away(raw)
        elif kind == frames.PUSH_PROMISE:  # the client was made to say that it takes none
            raise NotHttp
        else:
            self._take_other(kind, flags, number, raw)

    # Data

    def _take_data(self, flags: int, number: int, raw: bytes) -> None:
        stream, length = self.streams.get(number), len(raw) - HEAD_BYTES
        end = bool(flags & frames.END_STREAM)
        if stream is None:
            self._drop(raw, length)
            return
        lane = self.lane_of(stream)
        lane.ended = lane.ended or end
        content = content_of(raw[HEAD_BYTES:], flags)
        if lane.dead:
            self._drop(raw, length)
            if stream.drains and not end:
                self.grant(stream, length)
            self.talk.lane_done(lane)
            return
        if len(content) < length:
            self.give_back += length - len(content)
            if not end:
                self.grant(stream, length - len(content))
        if lane.body is not None:
            lane.body.take(content, len(raw), end=end)
            self.talk.lane_done(lane)
            return
        self._put_data(lane, content, len(raw), end=end)

    def _drop(self, raw: bytes, length: int) -> None:
        """What nobody is to see; the sender has its window back."""
        self.give_back += length
        self.flow.left(len(raw))

    def _put_data(self, lane: Lane, content: bytes, size: int, *, end: bool) -> None:
        item = Item("data", content, end=end, size=size, arrived_ns=self._stamp_ns)
        if lane.messages is not None:
            before = lane.messages.seen
            begun, ends = lane.messages.scan(content)
            if begun:
                self.talk.delay_messages(lane, item, begun)
            if lane.cut is not None and self.talk.is_there(lane.cut[0]):
                last = lane.cut[1].after_messages - before
                if len(ends) >= last:
                    self.give_back += len(content) - ends[last - 1]
                    item.payload, item.end = content[: ends[last - 1]], False
                    lane.put(item)
                    lane.dead = True
                    lane.put(Item("act", call=lambda: self.talk.cut(lane)))
                    return
        lane.put(item)

    # Header blocks

    def _take_headers(self, flags: int, number: int, raw: bytes) -> None:
        content = content_of(raw[HEAD_BYTES:], flags)
        block = content[_PRIORITY_BYTES:] if flags & frames.HAS_PRIORITY else content
        if flags & frames.END_HEADERS:
            self._take_block(number, flags, raw, self.blocks.read(block))
        else:
            self._open = OpenBlock(number, flags, raw, block)

    def _continue(self, kind: int, flags: int, number: int, raw: bytes) -> None:
        opened = self._open
        if opened is None or kind != frames.CONTINUATION or number != opened.stream:
            raise NotHttp
        block = opened.block + raw[HEAD_BYTES:]
        if opened.frames >= _CONTINUATIONS_MOST or len(block) > HEAD_MOST:
            raise NotHttp
        if not flags & frames.END_HEADERS:
            opened.frames, opened.raw, opened.block = opened.frames + 1, opened.raw + raw, block
            return
        fields = self.blocks.read(block)
        self._open = None
        self._take_block(number, opened.flags, opened.raw + raw, fields)

    def _take_block(self, number: int, flags: int, raw: bytes, fields: Fields) -> None:
        self._heads_left -= 1
        item = Item(
            "head", fields=fields, end=bool(flags & frames.END_STREAM), size=len(raw), arrived_ns=self._stamp_ns
        )
        stream = self.streams.get(number)
        if stream is None and self.is_up and number > self.talk.last_client:
            stream = self.talk.begin(number)
            if stream is not None:
                stream.up.ended = item.end
                self.talk.take_request(stream, item, raw)
                return
        if stream is None:
            if self.talk.changed:
                self.blocks.rewrite()
                self.flow.left(len(raw))
            elif self.blocks.as_they_came:
                self._again(raw)
            else:
                self.emit(frames.headers_frames(number, self.blocks.write(fields), end=item.end))
                self.flow.left(len(raw))
            return
        lane = self.lane_of(stream)
        lane.ended = lane.ended or item.end
        if lane.dead:
            self.blocks.rewrite()
            self.flow.left(len(raw))
            self.talk.lane_done(lane)
        elif lane.body is not None:
            self.blocks.rewrite()
            lane.body.trailers(item)
            self.talk.lane_done(lane)
        elif not self.is_up and not lane.head_came:
            self.talk.take_response(stream, item, raw)
        else:
            self.pass_head(lane, item, raw)

    def pass_head(self, lane: Lane, item: Item, raw: bytes) -> None:
        """A head goes on unchanged: as it came if that says the same to the receiver."""
        stream = lane.stream
        if lane.plain and not item.late and self.blocks.as_they_came and stream.server == stream.client:
            self._again(raw)
            lane.head_went = not is_interim(item.fields)
            if item.end:
                lane.done = True
                self.talk.lane_done(lane)
            return
        self.blocks.rewrite()
        lane.put(item)

    def send_head(self, lane: Lane, item: Item) -> None:
        """A head of ours."""
        stream = lane.stream
        if not stream.server and self.is_up and not self.talk.tell_service(stream):
            return
        lane.head_went = not is_interim(item.fields)
        self.emit(frames.headers_frames(self.number_of(stream), self.blocks.write(item.fields), end=item.end))
        if self.is_up and stream.updates:
            self.emit(frames.number_frame(frames.WINDOW_UPDATE, stream.server, stream.updates))
            stream.updates = 0

    # Other frames

    def _take_settings(self, flags: int, raw: bytes) -> None:
        if flags & frames.ACK:
            self.blocks.acknowledged()
            said = [self._windows.popleft(), *self._windows]
            self._resize_windows(min((one for one in said if one is not None), default=self.initial))
            self._again(raw)
            return
        settings, other = frames.settings_in(raw[HEAD_BYTES:]), self.other
        table: int | None = None
        window: int | None = None
        passed: list[tuple[int, int]] = []
        for name, value in settings:
            if name == frames.HEADER_TABLE_SIZE:
                table = min(value, TABLE_BYTES_MOST)
                passed.append((name, table))
            elif name == frames.MAX_FRAME_SIZE:
                passed.append((name, min(value, frames.FRAME_BYTES_MOST)))
            else:
                passed.append((name, 0 if name == frames.ENABLE_PUSH and self.is_up else value))
            if name == frames.INITIAL_WINDOW_SIZE:
                window = value
        if self.is_up and not self._begun and all(name != frames.ENABLE_PUSH for name, _ in settings):
            passed.append((frames.ENABLE_PUSH, 0))
        other.blocks.announced(table)
        other.announced(window)
        self.begin(frames.frame(frames.SETTINGS, flags, 0, frames.settings_payload(passed)), len(raw))

    def announced(self, window: int | None) -> None:
        """The receiver has sent settings, with this initial window if it said one: less counts at once, more when acknowledged."""
        self._windows.append(window)
        if window is not None and window < self.initial:
            self._resize_windows(window)

    def _resize_windows(self, initial: int) -> None:
        change, self.initial = initial - self.initial, initial
        for stream in list(self.talk.requests.streams.values()):
            lane = self.lane_of(stream)
            lane.window += change
            if lane.ours and change > 0:
                lane.drain()

    def _take_update(self, number: int, raw: bytes) -> None:
        granted, other = frames.number_in(raw[HEAD_BYTES:]) & frames.WINDOW_MOST, self.other
        self.flow.left(len(raw))
        if not number:
            other.window += granted
            ours = min(granted, other.debt)
            other.debt -= ours
            if granted > ours:
                self.emit(frames.number_frame(frames.WINDOW_UPDATE, 0, granted - ours))
            for lane in list(other.starved):
                if other.window <= 0:
                    break
                del other.starved[lane]
                lane.drain()
            return
        stream = self.streams.get(number)
        if stream is None:
            return
        lane = other.lane_of(stream)
        lane.window += granted
        if lane.ours:
            lane.drain()
        elif lane.dead:
            return
        elif not stream.server:
            stream.updates = min(stream.updates + granted, frames.WINDOW_MOST)
        else:
            self.emit(frames.number_frame(frames.WINDOW_UPDATE, self.number_of(stream), granted))

    def _take_reset(self, number: int, raw: bytes) -> None:
        code, stream = frames.number_in(raw[HEAD_BYTES:]), self.streams.get(number)
        if stream is None:
            if self.talk.changed:
                self.flow.left(len(raw))
            else:
                self._again(raw)
            return
        lane = self.lane_of(stream)
        lane.ended = True
        if not self.is_up and lane.queue and not stream.aborted:  # it is part of an answer that is late
            stream.up.drop()
            lane.put(Item("act", call=lambda: self._reset(stream, code), size=len(raw)))
            return
        self.flow.left(len(raw))
        self._reset(stream, code)

    def _reset(self, stream: Stream, code: int) -> None:
        if (stream.server or not self.is_up) and not stream.aborted:
            self.emit(frames.number_frame(frames.RST_STREAM, self.number_of(stream), code))
        self.talk.forget(stream)

    def _take_other(self, kind: int, flags: int, number: int, raw: bytes) -> None:
        stream = self.streams.get(number) if number else None
        hint = kind in (frames.PRIORITY, frames.PRIORITY_UPDATE)
        if hint:
            if self.talk.changed or (stream is not None and not stream.server):
                self.flow.left(len(raw))
            else:
                self._again(raw)
        elif not number or (stream is None and not self.talk.changed):
            self._again(raw)
        elif stream is None or self.lane_of(stream).dead:
            self.flow.left(len(raw))
        else:
            self.lane_of(stream).put(Item("other", raw[HEAD_BYTES:], code=kind << 8 | flags, size=len(raw)))

    # What goes in this direction

    def lane_of(self, stream: Stream) -> Lane:
        """This direction of a stream."""
        return stream.up if self.is_up else stream.down

    def number_of(self, stream: Stream) -> int:
        """The receiver's number for a stream."""
        return stream.server if self.is_up else stream.client

    def grant(self, stream: Stream, size: int) -> None:
        """Give the sender of this direction window of a stream."""
        number = stream.client if self.is_up else stream.server
        if number and size:
            self.other.emit(frames.number_frame(frames.WINDOW_UPDATE, number, size))

    def flush(self) -> None:
        """Send what has been gathered, windows first."""
        if self.give_back:
            size, self.give_back = self.give_back, 0
            self.other.emit(frames.number_frame(frames.WINDOW_UPDATE, 0, size))
        super().flush()

    def close(self) -> None:
        """The connection is gone."""
        super().close()
        self.starved.clear()

    def is_as_it_came(self) -> bool:
        """Whether all that went on so far is what came, and nothing is held."""
        return self.blocks.as_they_came and not self.busy and not self.debt and not self.collected
