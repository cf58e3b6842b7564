"""One direction of one connection: from a socket, through the toxics that are on it, to the other socket.

General layout: reading (`_copy` and `_splice` when no toxic is on: straight through; `_through_chain` else), holding
back the sender, the chain of stages, ends. `readable` is whichever way of reading is right now.

Bytes in hand are counted in `in_flight`, in one place when they come (`taken`) and one when they go (`left`); a
sender is made to wait (its socket is not read) while there are more than `capacity`.
"""

from __future__ import annotations

import os
import struct
import time
from random import Random
from typing import TYPE_CHECKING, Any, Final

from squall.proxy.loop import READ
from squall.proxy.outlet import Outlet
from squall.proxy.pipes import PIPE_BYTES, FilledPipe, Pipe
from squall.proxy.toxics import KINDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import TypeAlias

    from squall.proxy.connection import Connection
    from squall.proxy.http.side import Side as Http1Side
    from squall.proxy.http2.side import Side as Http2Side
    from squall.proxy.toxics import Direction, Inlet, Stage, Toxic

    Side: TypeAlias = Http1Side | Http2Side

__all__ = ["Flow"]

COPY_BYTES: Final = 1 << 18
"""The size of the one buffer that all straight copies share, and of a bulk read."""
_CHUNK_BYTES: Final = 1 << 16
_BULK_BYTES: Final = 1 << 16
_SMALL_BYTES: Final = 1 << 15
_SMALL_READS: Final = 8
_ROOM_BYTES: Final = 1 << 18
_REST_READS: Final = 64
_CROWD_BYTES: Final = 4 << 20
_CROWD_PIECES: Final = 4096
_SO_TIMESTAMPNS: Final = 35
_STAMP = struct.Struct("qq")
_STAMP_SPACE: Final = 64
_OLDEST_STAMP_NS: Final = 2_000_000
"""A stamp is believed up to this age: the wall clock, which it is in, may have been set meanwhile."""


class Flow:
    """One direction; its stages ask it what `toxics.Host` says."""

    __slots__ = (
        "_budget", "_buffer", "_bulk", "_capacity", "_fd", "_options", "_pipe", "_pool", "_recv_into", "_send",
        "_small_reads", "_stamped", "_takes_pipes", "chain", "close_at_end", "connection", "direction", "ended", "first",
        "in_flight", "loop", "outermost", "outlet", "paused", "readable", "received", "reset_at_end", "reverse", "source",
        "target",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, direction: Direction, source: socket.socket, target: socket.socket
    ) -> None:
        plane = connection.proxy.plane
        self.connection, self.direction, self.source, self.target = connection, direction, source, target
        self.loop, self._pool, self._budget, self._options = plane.loop, plane.pool, plane.budget, plane.options
        self._buffer = plane.buffer
        self._fd = source.fileno()
        self._recv_into, self._send = source.recv_into, target.send
        self.reverse: Flow = self
        self.outlet = Outlet(self)
        self.chain: list[Stage[Any]] = []
        self.outermost: Side | None = None
        """What follows HTTP messages here, nearest to the client: before the toxics upstream, behind them downstream."""
        self.first: Inlet = self.outlet
        self.received = 0
        self.in_flight = 0
        self.ended = self.paused = False
        self.reset_at_end = self.close_at_end = False
        self._capacity = 0
        self._small_reads = 0
        self._pipe: Pipe | None = None
        self._bulk = self._stamped = False
        self.readable: Callable[[], None] = self._copy

    # Reading, no toxic on

    def _copy(self) -> None:
        if self.in_flight:
            return self.pause()
        buffer = self._buffer
        try:
            size = self._recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError:
            return self.connection.broken(self)
        if not size:
            return self.finish()
        self.received += size
        try:
            sent = self._send(buffer[:size])
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.target_broke()
        self.outlet.sent += sent
        if sent < size:
            self.taken(size - sent)
            self.outlet.keep(bytes(buffer[sent:size]))
            self.pause()
        elif size >= _BULK_BYTES and self._options.engine == "splice":
            self._begin_bulk()
        return None

    def _splice(self) -> None:
        if self.in_flight:
            return self.pause()
        pipe = self._pipe
        if pipe is None:
            pipe = self._pipe = self._pool.take()
            if pipe is None:
                self.readable = self._copy
                return self._copy()
        try:
            size = os.splice(self._fd, pipe.writer, PIPE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return self.connection.broken(self)
        if not size:
            return self.finish()
        self.received += size
        return self._splice_out(pipe, size)

    def _splice_out(self, pipe: Pipe, size: int) -> None:
        sent, target = 0, self.target.fileno()
        try:
            while sent < size:
                sent += os.splice(pipe.reader, target, size - sent)
        except BlockingIOError:
            self._pipe = None
            self.taken(size - sent)
            self.outlet.keep(FilledPipe(self._pool, pipe, size - sent))
            self.pause()
        except OSError:
            self._pipe = None
            self._pool.discard(pipe)
            return self.target_broke()
        self.outlet.sent += sent
        if not self._still_bulk(size):
            self._choose_reader()
        return None

    def _begin_bulk(self) -> None:
        self._bulk, self._small_reads = True, 0
        self._choose_reader()

    def _still_bulk(self, size: int) -> bool:
        """Whether a direction that moves in bulk still does, after one more read."""
        self._small_reads = self._small_reads + 1 if size < _SMALL_BYTES else 0
        if self._small_reads > _SMALL_READS:
            self._bulk = False
            self._give_pipe()
        return self._bulk

    def _give_pipe(self) -> None:
        if self._pipe is not None:
            self._pool.give(self._pipe)
            self._pipe = None

    # Reading, through toxics

    def _through_chain(self) -> None:
        stamp_ns = time.monotonic_ns()
        try:
            data, stamp_ns = self._read_chunk(stamp_ns)
        except BlockingIOError:
            return
        except OSError:
            self.connection.broken(self)
            return
        size = len(data)
        if not size:
            self.finish()
            return
        self.received += size
        self.taken(size)
        if not self._bulk and size >= _BULK_BYTES:
            self._bulk, self._small_reads = True, 0
        elif self._bulk:
            self._still_bulk(size)
        self.first.feed(data, stamp_ns)
        if not self.ended and self.in_flight > self._room():
            self.pause()

    def _read_chunk(self, now_ns: int) -> tuple[bytes | FilledPipe, int]:
        if self._bulk:
            pipe = self._pool.take() if self._takes_pipes else None
            if pipe is None:
                return self.source.recv(COPY_BYTES if self._takes_pipes else _CHUNK_BYTES), now_ns
            try:
                size = os.splice(self._fd, pipe.writer, PIPE_BYTES)
            except OSError:
                self._pool.give(pipe)
                raise
            if not size:
                self._pool.give(pipe)
                return b"", now_ns
            return FilledPipe(self._pool, pipe, size), now_ns
        if not self._stamped:
            return self.source.recv(_CHUNK_BYTES), now_ns
        data, notes, _, _ = self.source.recvmsg(_CHUNK_BYTES, _STAMP_SPACE)
        if notes:
            seconds, nanoseconds = _STAMP.unpack_from(notes[0][2])
            age_ns = time.time_ns() - (seconds * 1_000_000_000 + nanoseconds)
            now_ns = time.monotonic_ns() - min(max(age_ns, 0), _OLDEST_STAMP_NS)
        return data, now_ns

    # Holding back the sender

    def taken(self, size: int) -> None:
        """Bytes came into hand."""
        self.in_flight += size
        self._budget.used += size

    def left(self, size: int) -> None:
        """Bytes left our hands, delivered or dropped; the sender may go on when few enough are left."""
        self.in_flight -= size
        self._budget.used -= size
        if self.paused and self.in_flight <= self._capacity - (self._capacity >> 3):
            self._resume()

    def crowded(self) -> bool:
        """Whether much more is in hand than may be read: others have put it here, and it does not get away."""
        return self.in_flight > self._room() + _CROWD_BYTES or len(self.outlet.queue) > _CROWD_PIECES

    def _room(self) -> int:
        return self._capacity if self._budget.used < self._budget.limit else min(self._capacity, _ROOM_BYTES)

    def pause(self) -> None:
        """Do not read the source for now: its sender will feel it."""
        if not self.paused:
            self.paused = True
            self.loop.want(self._fd, 0, READ)

    def _resume(self) -> None:
        self.paused = False
        if not self.ended:
            self.loop.want(self._fd, READ)

    # The chain of toxics

    def add(self, toxic: Toxic, position: int) -> None:
        """Put a toxic on this direction, at this place in the chain."""
        stage = KINDS[toxic.type](self, toxic, toxic.attributes)
        self.insert(stage, position)

    def insert(self, stage: Stage[Any], position: int) -> None:
        """Put a stage into the chain; what later stages hold is ahead of all that it will see."""
        self.chain.insert(position, stage)
        self._link()

    def remove(self, stage: Stage[Any]) -> None:
        """Take a stage out of the chain; what it held has moved on."""
        stage.release()
        if stage in self.chain:  # its release may have closed the connection
            self.chain.remove(stage)
            self._link()
        stage.close()

    def stage_of(self, toxic: Toxic) -> Stage[Any] | None:
        """Where a toxic is at work here."""
        return next((stage for stage in self.chain if stage.toxic is toxic), None)

    def follow(self, side: Side | None) -> None:
        """Follow HTTP messages from here on, or no longer."""
        self.outermost = side
        self._link()

    def _link(self) -> None:
        stages: list[Stage[Any] | Side] = [*self.chain]
        if self.outermost is not None:
            stages.insert(0 if self.direction == "upstream" else len(stages), self.outermost)
        following: Inlet = self.outlet
        for stage in reversed(stages):
            stage.next = following
            following = stage
        self.first = following
        self._takes_pipes = self._options.engine == "splice" and all(stage.takes_pipes for stage in stages)
        queue_bytes = self._options.queue_bytes
        extra = sum(queue_bytes if stage.capacity < 0 else stage.capacity for stage in stages)
        self._capacity = _ROOM_BYTES + extra if stages else 0
        if self._options.stamp and not self._stamped and any(stage.stamped for stage in stages):
            self.source.setsockopt(1, _SO_TIMESTAMPNS, 1)  # level SOL_SOCKET
            self._stamped = True
        self._choose_reader()
        self.left(0)

    def _choose_reader(self) -> None:
        if self.first is not self.outlet:
            self._give_pipe()
            self.readable = self._through_chain
        else:
            self.readable = self._splice if self._bulk else self._copy

    def random(self, name: str) -> Random:
        """A generator that depends on the seed, the connection's number, the direction and this name only."""
        connection = self.connection
        return Random(  # noqa: S311 - replayed, not secret
            f"{connection.proxy.plane.seed}/{connection.proxy.name}/{connection.number}/{self.direction}/{name}"
        )

    # Ends

    def finish(self) -> None:
        """The source has sent its last byte: say so down the chain."""
        if not self.ended:
            self.ended = True
            self.loop.want(self._fd, 0, READ)
            self.first.end()

    def read_rest(self) -> None:
        """The source is broken: take what the kernel still has of it."""
        for _ in range(_REST_READS):
            try:
                data = self.source.recv(COPY_BYTES)
            except OSError:
                return
            if not data:
                return
            self.received += len(data)
            self.taken(len(data))
            self.first.feed(data, time.monotonic_ns())

    def close_after(self, stage: Inlet) -> None:
        """Close the whole connection once what this stage let pass is delivered."""
        self.close_at_end = self.ended = True
        self.loop.want(self._fd, 0, READ)
        following = getattr(stage, "next", self.outlet)
        following.end()

    def reset(self) -> None:
        """Reset the whole connection now."""
        self.connection.reset()

    def target_broke(self) -> None:
        """Nothing can be written to the target any more; what it sent may still be on its way."""
        self.connection.broken(self.reverse)

    def delivered(self) -> None:
        """The end has come through and all before it is written."""
        self.outlet.done = True
        if self.reset_at_end:
            self.connection.reset()
        elif self.close_at_end:
            self.connection.close()
        else:
            self.connection.end_delivered(self)

    def abandon(self) -> None:
        """Its target is broken: drop what is in hand, read no more."""
        self.ended = True
        self.loop.want(self._fd, 0, READ)
        self.close()

    def close(self) -> None:
        """Drop everything."""
        self.ended = True
        for stage in self.chain:
            stage.close()
        if self.outermost is not None:
            self.outermost.close()
        self.chain, self.outermost = [], None
        self.first = self.outlet
        self.outlet.close()
        if self._pipe is not None:
            self._pool.discard(self._pipe)
            self._pipe = None
        self._budget.used -= self.in_flight
        self.in_flight = 0

    def dismantle(self) -> None:
        """Let go of everything that leads back here, so that it is freed at once: the collector runs rarely."""
        del self.reverse, self.connection, self.outlet, self.first, self.readable
