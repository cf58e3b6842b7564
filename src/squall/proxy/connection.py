"""One client's connection: two sockets and the two directions between them."""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from squall.proxy.flow import Flow
from squall.proxy.http.conversation import Conversation, Reason
from squall.proxy.http.rules import HTTP_KINDS
from squall.proxy.http2.conversation import Http2
from squall.proxy.loop import ERROR, HANGUP, READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.proxy.resolver import Address
    from squall.proxy.route import Proxy
    from squall.proxy.toxics import Direction, Toxic

__all__ = ["Connection"]

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_LAST_READS: Final = 64
_EVERYTHING: Final = READ | WRITE


class Connection:
    """The `number` counts the connections of its proxy from 0; draws depend on it."""

    __slots__ = (
        "_addresses", "_server", "client", "closed", "conversation", "down", "let_go_for", "loop", "number", "proxy", "up",
    )  # fmt: skip

    def __init__(self, proxy: Proxy, number: int, client: socket.socket) -> None:
        self.proxy, self.number, self.client = proxy, number, client
        self.loop = proxy.plane.loop
        self.closed = False
        self.up: Flow | None = None
        self.down: Flow | None = None
        self.conversation: Conversation | Http2 | None = None
        self.let_go_for: Reason | None = None
        """Why its HTTP messages are no longer followed."""
        self._server: socket.socket | None = None
        self._addresses: list[Address] = []
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Connecting

    def connect(self, addresses: Sequence[Address]) -> None:
        """Try these addresses in order; with none left the client sees its connection end."""
        self._addresses = list(addresses)
        self._try_next()

    def _try_next(self) -> None:
        if self.closed:
            return
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                server = self.proxy.outgoing(self, family, address)
            except OSError:  # out of descriptors, or a family that this machine has not
                continue
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outcome = server.connect_ex(address)
            if outcome not in (0, errno.EINPROGRESS):
                server.close()
                continue
            self._server = server
            try:
                server.getpeername()  # on loopback the handshake is over by now: no trip through epoll
            except OSError:
                self.loop.handle(server.fileno(), self._connecting)
                self.loop.want(server.fileno(), WRITE)
                return
            self._connected(server)
            return
        self.proxy.unreachable(self)

    def _connecting(self, _events: int) -> None:
        server = self._server
        if server is None or self.closed:
            return
        if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.loop.dispose(server)
            self._server = None
            self._try_next()
            return
        self.loop.want(server.fileno(), 0, WRITE)
        self._connected(server)

    def _connected(self, server: socket.socket) -> None:
        up, down = Flow(self, "upstream", self.client, server), Flow(self, "downstream", server, self.client)
        up.reverse, down.reverse = down, up
        self.up, self.down = up, down
        self.proxy.dress(self)
        self.loop.handle(self.client.fileno(), self._client_ready)
        self.loop.handle(server.fileno(), self._server_ready)
        self.loop.want(server.fileno(), READ)
        self.loop.want(self.client.fileno(), READ)
        up.readable()  # the first request is often here already

    # Readiness

    def _client_ready(self, events: int) -> None:
        if self.up is not None and self.down is not None:
            self._ready(events, self.up, self.down)

    def _server_ready(self, events: int) -> None:
        if self.up is not None and self.down is not None:
            self._ready(events, self.down, self.up)

    def _ready(self, events: int, reads: Flow, writes: Flow) -> None:
        if events & ERROR:
            self.broken(reads)
            return
        if events & (READ | HANGUP) and not reads.ended and not reads.paused:
            reads.readable()
        if events & WRITE and not self.closed:
            writes.outlet.writable()

    # Toxics

    def flow(self, stream: Direction) -> Flow | None:
        """The direction of this name, once connected."""
        return self.up if stream == "upstream" else self.down

    def converse(self) -> None:
        """Follow HTTP messages from here on; only while not a byte has passed is it known where one begins."""
        up, down = self.up, self.down
        if up is None or down is None or self.conversation is not None or up.received or down.received:
            return
        talk = self.conversation = Conversation(self, up, down)
        up.follow(talk.requests)
        down.follow(talk.responses)

    def speak_http2(self, held: Sequence[bytes]) -> None:
        """Follow HTTP/2 instead, beginning with what each direction has in hand."""
        up, down, before = self.up, self.down, self.conversation
        if up is None or down is None:
            return
        talk = self.conversation = Http2(self, up, down)
        up.follow(talk.requests)
        down.follow(talk.responses)
        for side, data in zip((talk.requests, talk.responses), held, strict=True):
            if data:
                side.feed(data, time.monotonic_ns())
        if before is not None:
            self.loop.later(before.dismantle)

    def forget_conversation(self) -> None:
        """Follow HTTP messages no longer."""
        if self.conversation is not None:
            self.loop.later(self.conversation.dismantle)
        self.conversation = None
        for flow in (self.up, self.down):
            if flow is not None:
                flow.follow(None)

    def count_unfollowed(self, toxic: Toxic) -> None:
        """Tell an HTTP toxic that it cannot hit this connection, and why."""
        if toxic.type not in HTTP_KINDS:
            return
        if self.let_go_for == "tls":
            toxic.hits.tls += 1
        elif self.let_go_for == "not_http":
            toxic.hits.not_http += 1
        elif self.conversation is None:
            toxic.hits.unfollowed += 1

    # Ends

    def end_delivered(self, flow: Flow) -> None:
        """One side's end has reached the other: a half-closed connection stays so until the other end comes."""
        if flow.reverse.outlet.done:
            self._close(read_last=False)
            return
        try:
            flow.target.shutdown(socket.SHUT_WR)
        except OSError:
            self.broken(flow.reverse)

    def broken(self, flow: Flow) -> None:
        """The source of this direction was reset: what it sent before is delivered, then the other side is reset."""
        if self.closed or flow.reset_at_end:
            return
        flow.reset_at_end = True
        self.loop.want(flow.source.fileno(), 0, _EVERYTHING)
        flow.reverse.abandon()
        if flow.outlet.done:
            self.reset()
        elif not flow.ended:
            flow.read_rest()
            flow.finish()

    def reset(self) -> None:
        """End both sides with a reset."""
        for sock in (self.client, self._server):
            if sock is not None and not self.closed:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                except OSError:
                    continue
        self._close(read_last=False)

    def close(self) -> None:
        """End both sides with an orderly close; what was not delivered is dropped."""
        self._close(read_last=True)

    def _close(self, *, read_last: bool) -> None:
        if self.closed:
            return
        self.closed = True
        for flow in (self.up, self.down):
            if flow is not None:
                flow.close()
        for sock in (self.client, self._server):
            if sock is not None:
                if read_last:
                    _read_last(sock)
                self.loop.dispose(sock)
        self.proxy.closed(self)
        for part in (self.up, self.down, self.conversation):
            if part is not None:
                self.loop.later(part.dismantle)
        self.up = self.down = self._server = self.conversation = None


def _read_last(sock: socket.socket) -> None:
    """Empty the receive buffer: the kernel answers a close over unread data with a reset instead of an end."""
    try:
        for _ in range(_LAST_READS):
            if not sock.recv(1 << 16):
                return
    except OSError:
        return
