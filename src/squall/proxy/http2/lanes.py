"""One direction of one stream: what waits in it, for its time or for room in the receiver's windows, and goes in order.

General layout: `Item` (what waits), `Lane`, `Stream` (both lanes and their numbers on either side).

Windows: the two ends of a connection grant them to each other, and the proxy only counts along. Where it holds data,
it gives the sender the connection's window back at once, so that one held stream does not stop the others, and keeps
as much of what the receiver grants later (`Side.debt`). In a lane that is `ours` the proxy is the receiver of what
comes, and the sender of what goes: bodies that are collected or replaced.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from squall.proxy.http2 import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.proxy.http.heads import RequestHead
    from squall.proxy.http.rules import GrpcAbortRule, GrpcDelayRule, Rule
    from squall.proxy.http2.bodies import EditedBody
    from squall.proxy.http2.grpc import Messages
    from squall.proxy.http2.hpack import Fields
    from squall.proxy.http2.side import Side
    from squall.proxy.loop import Timer
    from squall.proxy.toxics import Toxic

__all__ = ["Item", "Lane", "Stream"]

_CREDITED_BYTES_MOST: Final = 8 << 20
"""Beyond so much held data in one direction, what is held counts against the connection's window."""


@dataclass(slots=True)
class Item:
    """Something that goes to the receiver, or (`act`) happens, in its turn."""

    kind: Literal["head", "data", "other", "act"]
    payload: bytes = b""
    """Of data and other frames."""
    fields: Fields = field(default_factory=list)
    """Of a head."""
    end: bool = False
    """The sender's last."""
    code: int = 0
    """Of another frame: its type and flags."""
    call: Callable[[], object] | None = None
    """What an act does."""
    size: int = 0
    """What the direction's account holds for it."""
    arrived_ns: int = 0
    late: dict[int, int] = field(default_factory=dict)
    """Nanoseconds by id of the toxic."""
    credited: bool = False
    """The sender has its window of the connection back, or there is none: the bytes are the proxy's."""
    counted: bool = False
    """It is part of `Side.credited`."""
    collected: int = 0
    """What of it is part of `Side.collected`."""
    sent: int = 0
    """How much of the payload has gone."""
    granting: bool = False
    """The sender gets its window of the stream back when it goes."""

    def due_ns(self) -> int:
        """When it may go."""
        return self.arrived_ns + sum(self.late.values())


class Lane:
    """`plain`: frames pass as they come; `ended`: the sender has finished; `done`: the receiver knows."""

    __slots__ = (
        "body", "cut", "dead", "done", "each", "ended", "head_came", "head_went", "messages", "ours", "plain", "queue", "side",
        "stream", "timer", "window",
    )  # fmt: skip

    def __init__(self, side: Side, stream: Stream) -> None:
        self.side, self.stream = side, stream
        self.window = side.initial
        """What the receiver's window of this stream has left."""
        self.queue: deque[Item] = deque()
        self.timer: Timer | None = None
        self.plain = True
        self.ended = self.done = self.head_came = self.head_went = False
        self.dead = False
        """Nothing of what the sender still sends is wanted."""
        self.ours = False
        self.body: EditedBody | None = None
        self.messages: Messages | None = None
        self.each: list[tuple[Toxic, GrpcDelayRule]] = []
        """What delays each message."""
        self.cut: tuple[Toxic, GrpcAbortRule] | None = None
        """What ends the call after so many messages."""

    def settle(self) -> None:
        """Know again whether frames pass as they come."""
        self.plain = not (self.queue or self.dead or self.ours or self.body or self.messages)

    # What goes

    def put(self, item: Item) -> None:
        """Send it in its turn: now, if nothing is in its way."""
        if self.queue or (item.late and item.due_ns() > time.monotonic_ns()) or not self._send(item):
            self._keep(item)
        self.settle()

    def _keep(self, item: Item) -> None:
        side = self.side
        if side.closed:
            return
        if item.kind == "data" and not item.credited and side.credited + len(item.payload) <= _CREDITED_BYTES_MOST:
            item.credited = True
            side.give_back += len(item.payload) - item.sent
            item.counted = True
            side.credited += item.size
        self.queue.append(item)
        side.busy.add(self)
        if len(self.queue) == 1 and item.late:
            self._arm(item)

    def _arm(self, item: Item) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.side.flow.loop.call_at(item.due_ns(), self._due, precise=True)

    def _due(self) -> None:
        self.timer = None
        self.drain()
        self.side.talk.settle()

    def drain(self) -> None:
        """Send what may go."""
        queue, side = self.queue, self.side
        while queue:
            item = queue[0]
            if item.late and item.due_ns() > time.monotonic_ns():
                if self.timer is None:
                    self._arm(item)
                break
            queue.popleft()
            if not self._send(item):
                queue.appendleft(item)
                break
        if not queue:
            side.busy.discard(self)
        self.settle()

    def _send(self, item: Item) -> bool:
        """Whether the whole of it went."""
        side = self.side
        if item.kind == "data":
            if not self._send_data(item):
                return False
        elif item.kind == "head":
            side.send_head(self, item)
        elif item.kind == "other":
            side.emit(frames.frame(item.code >> 8, item.code & 0xFF, side.number_of(self.stream), item.payload))
        elif item.call is not None:
            item.call()
        self._gone(item)
        if item.end:
            self.done = True
            side.talk.lane_done(self)
        return True

    def _gone(self, item: Item) -> None:
        """Nothing of it is in hand any more."""
        if item.counted:
            self.side.credited -= item.size
        self.side.collected -= item.collected
        self.side.flow.left(item.size)

    def _send_data(self, item: Item) -> bool:
        side, size = self.side, len(item.payload) - item.sent
        room = size
        if item.credited or side.debt:
            room = min(room, side.window)
        if self.ours:
            room = min(room, self.window)
        room = max(room, 0)
        if room < size and side.window <= room:
            side.starved[self] = None
        if size and not room:
            return False
        self._write(item.payload[item.sent : item.sent + room], end=item.end and room == size)
        item.sent += room
        if item.credited:
            side.debt += room
        if item.granting and room:
            side.grant(self.stream, room)
        return room == size

    def _write(self, payload: bytes, *, end: bool) -> None:
        """DATA frames; a receiver may not take larger ones than this."""
        side, number, step = self.side, self.side.number_of(self.stream), frames.SMALLEST_FRAME_BYTES_MOST
        side.window -= len(payload)
        self.window -= len(payload)
        for start in range(0, len(payload) or 1, step):
            last = start + step >= len(payload)
            side.emit(
                frames.frame(
                    frames.DATA, frames.END_STREAM if end and last else 0, number, payload[start : start + step]
                )
            )

    # Changes

    def retime(self, toxic: Toxic, delay: Callable[[], int] | None) -> None:
        """A delaying toxic was changed (its next draw) or removed (None): what it holds follows."""
        held = [item for item in self.queue if id(toxic) in item.late]
        for item in held:
            item.late[id(toxic)] = 0 if delay is None else delay()
        if held and self.queue:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.drain()

    def drop(self) -> None:
        """Nothing of what waits, or still comes, goes on."""
        side = self.side
        while self.queue:
            item = self.queue.popleft()
            self._gone(item)
            if item.kind == "data" and not item.credited:
                side.give_back += len(item.payload) - item.sent
        side.busy.discard(self)
        side.starved.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.body is not None:
            self.body.abandon()
            self.body = None
        self.dead, self.plain = True, False


class Stream:
    """A stream by its numbers: the client's, and the service's (0 while it does not know of it)."""

    __slots__ = ("aborted", "client", "down", "drains", "head", "rules", "server", "up", "updates")

    def __init__(self, client: int, requests: Side, responses: Side) -> None:
        self.client, self.server = client, 0
        self.up, self.down = Lane(requests, self), Lane(responses, self)
        self.head: RequestHead | None = None
        """The request's, where rules hit the stream."""
        self.rules: list[tuple[Toxic, Rule]] = []
        """What hits the response."""
        self.updates = 0
        """What the client granted of the response's window while the service did not know of the stream."""
        self.aborted = False
        """The proxy answers, or ends, it."""
        self.drains = False
        """What the client still sends is let come to its end: not every client of HTTP can stop in the middle."""
