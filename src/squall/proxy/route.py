"""One proxy: it listens, connects each client to its upstream, and has toxics."""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

from squall.proxy.connection import Connection
from squall.proxy.http.rules import HTTP_KINDS
from squall.proxy.loop import READ
from squall.proxy.refusals import NotFound
from squall.proxy.resolver import listen_on, read_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from squall.proxy.flow import Flow
    from squall.proxy.plane import Plane
    from squall.proxy.resolver import SocketAddress
    from squall.proxy.toxics import Direction, Toxic

__all__ = ["Proxy"]

_ACCEPTS_AT_ONCE: Final = 32
_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_OUT_OF_DESCRIPTORS_WAIT_S: Final = 0.1
_GONE_MOST: Final = 64


class Proxy:
    """A name, a listen address, an upstream, and the toxics between them; `enabled` while it listens."""

    def __init__(self, plane: Plane, name: str, listen: str, upstream: str) -> None:
        self.plane, self.name = plane, name
        self.listen, self.upstream = listen, upstream
        self.toxics: list[Toxic] = []
        self.http: dict[str, int] = dict.fromkeys(("messages", "not_http", "tls", "upgraded"), 0)
        """HTTP requests that were followed, and connections that were not, by reason."""
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.gone: dict[str, dict[str, int]] = {}
        """What removed toxics had hit, by name; the newest 64."""
        self._listeners: list[socket.socket] = []
        self._past = {"upstream": [0, 0], "downstream": [0, 0]}

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return bool(self._listeners)

    # Listening

    def enable(self) -> None:
        """Listen; CannotListen when the address cannot be had; harmless when it does already."""
        if self._listeners:
            return
        self._listeners = self._listen()
        for listener in self._listeners:
            self.plane.loop.handle(listener.fileno(), partial(self._accept, listener))
            self.plane.loop.want(listener.fileno(), READ)

    def _listen(self) -> list[socket.socket]:
        """The sockets that clients come to."""
        listener = listen_on(self.listen)
        host, port = listener.getsockname()[:2]
        self.listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return [listener]

    def disable(self) -> None:
        """Refuse new connections and end the open ones."""
        self.stop_listening()
        for connection in list(self.connections):
            connection.close()

    def stop_listening(self) -> None:
        """Refuse new connections; open ones go on."""
        for listener in self._listeners:
            self.plane.loop.ignore(listener.fileno())
            listener.close()
        self._listeners = []

    def _accept(self, listener: socket.socket, _events: int) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            if listener not in self._listeners:
                return
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._rest(listener)
                    return
                continue  # the client has gone already
            connection = Connection(self, self.accepted, client)
            self.accepted += 1
            self.connections.add(connection)
            self._lead(connection)

    # To the upstream; a proxy that is not told of one does these in its own way

    def _lead(self, connection: Connection) -> None:
        """Have a new connection connect to where it is to go."""
        self.plane.resolver.resolve(read_endpoint(self.upstream), connection.connect)

    def outgoing(self, connection: Connection, family: int, address: SocketAddress) -> socket.socket:  # noqa: ARG002 - for those that bind it
        """The socket by which a connection is going to connect to this address; OSError where there can be none."""
        return socket.socket(family, _STREAM)

    def unreachable(self, connection: Connection) -> None:
        """No address of the upstream could be reached: the client's connection ends, as Toxiproxy does it."""
        connection.close()

    def _rest(self, listener: socket.socket) -> None:
        """Out of descriptors: leave new clients waiting in the kernel for a moment, instead of asking again and again."""
        loop = self.plane.loop
        loop.want(listener.fileno(), 0, READ)

        def again() -> None:
            if listener in self._listeners:
                loop.want(listener.fileno(), READ)

        loop.call_later(_OUT_OF_DESCRIPTORS_WAIT_S, again)

    def dress(self, connection: Connection) -> None:
        """Put the toxics that hit it on a new connection."""
        http = self.plane.options.http
        for toxic in self.toxics:
            flow = connection.flow(toxic.stream)
            if toxic.type in HTTP_KINDS:
                http = True
            elif flow is not None and self.is_on(flow, toxic):
                flow.add(toxic, len(flow.chain))
        if http:
            connection.converse()

    def closed(self, connection: Connection) -> None:
        """A connection has ended: keep its counts."""
        self.connections.discard(connection)
        for flow in (connection.up, connection.down):
            if flow is not None:
                past = self._past[flow.direction]
                past[0] += flow.received
                past[1] += flow.outlet.sent

    # Toxics

    def toxic(self, name: str) -> Toxic:
        """The toxic of this name; NotFound."""
        for toxic in self.toxics:
            if toxic.name == name:
                return toxic
        raise NotFound("toxic not found")

    def in_order(self) -> list[Toxic]:
        """Upstream toxics, then downstream ones, each in order of creation, which is the order of application."""
        return sorted(self.toxics, key=lambda toxic: toxic.stream == "downstream")

    def add_toxic(self, toxic: Toxic) -> None:
        """Put a toxic behind those that are there, on open connections too."""
        self.toxics.append(toxic)
        if toxic.type in HTTP_KINDS:
            for connection in list(self.connections):
                connection.converse()
                connection.count_unfollowed(toxic)
            return
        for flow in self._flows(toxic.stream):
            if self.is_on(flow, toxic):
                flow.add(toxic, len(flow.chain))

    def update_toxic(self, toxic: Toxic, attributes: Mapping[str, object], toxicity: float | None) -> None:
        """Change a toxic in place, without a gap; a connection that it is on stays so unless the toxicity falls below its draw."""
        toxic.attributes = toxic.attributes.updated(attributes)
        if toxicity is not None:
            toxic.toxicity = toxicity
        if toxic.type in HTTP_KINDS:
            self._tell_conversations(toxic, removed=False)
            return
        for flow in self._flows(toxic.stream):
            stage, hit = flow.stage_of(toxic), self.is_on(flow, toxic)
            if stage is not None and hit:
                stage.configure(toxic.attributes)
            elif stage is not None:
                flow.remove(stage)
            elif hit:
                flow.add(toxic, self._position(flow, toxic))

    def remove_toxic(self, toxic: Toxic) -> None:
        """Take a toxic away; what it holds goes on at once."""
        self.toxics.remove(toxic)
        if toxic.type in HTTP_KINDS:
            self._tell_conversations(toxic, removed=True)
        for flow in self._flows(toxic.stream):
            stage = flow.stage_of(toxic)
            if stage is not None:
                flow.remove(stage)
        self.gone[toxic.name] = toxic.hits.to_json()
        while len(self.gone) > _GONE_MOST:
            del self.gone[next(iter(self.gone))]

    def _tell_conversations(self, toxic: Toxic, *, removed: bool) -> None:
        for connection in list(self.connections):
            if connection.conversation is not None:
                connection.conversation.retime(toxic, removed=removed)

    def is_on(self, flow: Flow, toxic: Toxic) -> bool:
        """Whether a toxic is on this direction: one draw for each connection, direction and toxic, kept when the share changes."""
        return toxic.toxicity >= 1 or flow.random(f"{toxic.name}/toxicity").random() < toxic.toxicity

    def _position(self, flow: Flow, toxic: Toxic) -> int:
        later = self.toxics[self.toxics.index(toxic) + 1 :]
        for position, stage in enumerate(flow.chain):
            if stage.toxic in later:
                return position
        return len(flow.chain)

    def _flows(self, stream: Direction) -> Iterator[Flow]:
        for connection in list(self.connections):
            flow = connection.flow(stream)
            if flow is not None:
                yield flow

    # What it looks like

    def to_json(self) -> dict[str, object]:
        """As Toxiproxy's API shows it."""
        return {
            "name": self.name, "listen": self.listen, "upstream": self.upstream, "enabled": self.enabled,
            "Logger": {}, "toxics": [toxic.to_json() for toxic in self.in_order()],
        }  # fmt: skip

    def stats(self) -> dict[str, object]:
        """Connections and bytes so far, hit counters of the toxics, those that were removed included."""
        counts = {stream: list(self._past[stream]) for stream in self._past}
        for connection in self.connections:
            for flow in (connection.up, connection.down):
                if flow is not None:
                    counts[flow.direction][0] += flow.received
                    counts[flow.direction][1] += flow.outlet.sent
        return {
            "name": self.name, "listen": self.listen, "upstream": self.upstream, "enabled": self.enabled,
            "connections": self.accepted, "open": len(self.connections), "seed": self.plane.seed,
            "received": {stream: count[0] for stream, count in counts.items()},
            "sent": {stream: count[1] for stream, count in counts.items()},
            "hits": {toxic.name: toxic.hits.to_json() for toxic in self.in_order()},
            "gone": dict(self.gone), "http": dict(self.http),
        }  # fmt: skip
