"""A toxic, and a toxic at work: `Toxic` is what was asked for a proxy, `Stage` is it on one direction of one connection.

Data goes down a chain of stages: each gets it by `feed`, in order, and hands it to the `next`, in order, when it sees
fit. Toxics come and go while data is in them: `release` makes a stage let go of all it holds at once, and it is then
taken out of the chain, so nothing is lost, doubled or overtaken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeVar

from squall.proxy.toxics.attributes import Attributes

if TYPE_CHECKING:
    from random import Random

    from squall.proxy.loop import Loop
    from squall.proxy.pipes import FilledPipe

__all__ = ["Data", "Direction", "Hits", "Host", "Inlet", "Stage", "Toxic"]

Direction = Literal["upstream", "downstream"]
Data = "bytes | FilledPipe"

A = TypeVar("A", bound=Attributes)


@dataclass(slots=True)
class Hits:
    """How often a toxic has hit: each counter only grows."""

    connections: int = 0
    """Connections on which it has done something."""
    chunks: int = 0
    """Pieces of data that it delayed, cut or dropped."""
    bytes: int = 0
    """Bytes in those pieces."""
    closed: int = 0
    """Connections that it ended."""
    requests: int = 0
    """HTTP messages that it hit."""
    missed: int = 0
    """HTTP messages that it should have changed and could not."""
    not_http: int = 0
    """Connections that an HTTP toxic could not hit, because they are not HTTP/1.x."""
    tls: int = 0
    """Connections that an HTTP toxic could not hit, because they are TLS."""
    unfollowed: int = 0
    """Connections that an HTTP toxic could not hit: when it came, it was not known where their next message begins."""

    def to_json(self) -> dict[str, int]:
        """The counters by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass
class Toxic:
    """One toxic of one proxy; `toxicity` is the share of connections it is on, 0 to 1 (more is 1)."""

    name: str
    type: str
    stream: Direction
    toxicity: float
    attributes: Attributes
    hits: Hits = field(default_factory=Hits)
    spelling: str = ""
    """The stream as it was asked for: any case is taken, and shown."""

    def to_json(self) -> dict[str, object]:
        """As Toxiproxy's API shows it."""
        return {
            "attributes": self.attributes.to_json(), "name": self.name, "type": self.type, "stream": self.spelling or self.stream,
            "toxicity": int(self.toxicity) if self.toxicity.is_integer() else self.toxicity,
        }  # fmt: skip


class Inlet(Protocol):
    """Where a stage puts what it lets pass: the next stage, or the socket at the end."""

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        """Take the next piece; `stamp_ns` is when it arrived here (CLOCK_MONOTONIC)."""

    def end(self) -> None:
        """The sender has finished: nothing more comes."""


class Host(Protocol):
    """What a stage may ask of the direction that it is on."""

    loop: Loop

    def random(self, name: str) -> Random:
        """A generator that depends on the seed, the connection's number, the direction and this name only."""

    def taken(self, size: int) -> None:
        """Bytes came into being here."""

    def left(self, size: int) -> None:
        """Bytes vanished here."""

    def close_after(self, stage: Inlet) -> None:
        """Close the whole connection once what this stage let pass is delivered."""

    def reset(self) -> None:
        """Reset the whole connection now."""


class Stage(Generic[A]):
    """A toxic at work on one direction of one connection. A new one implements `feed`, and `release` if it holds data."""

    type: ClassVar[str]
    defaults: ClassVar[Attributes]
    capacity: ClassVar[int] = 0
    """Bytes it may hold beyond the usual before the sender is made to wait; -1: what the options allow a queue."""
    takes_pipes: ClassVar[bool] = False
    """It never looks at the bytes, so bulk data may come in pipes."""
    stamped: ClassVar[bool] = False
    """It is better for knowing when a packet arrived in the kernel."""

    next: Inlet

    def __init__(self, host: Host, toxic: Toxic, attributes: A) -> None:
        self.host = host
        self.toxic = toxic
        self.attributes = attributes
        self._counted = False

    def feed(self, data: bytes | FilledPipe, stamp_ns: int) -> None:
        """Take the next piece, in order."""
        self.next.feed(data, stamp_ns)

    def end(self) -> None:
        """Nothing more comes; pass it on when all that is held has been."""
        self.next.end()

    def configure(self, attributes: A) -> None:
        """The toxic was changed; what is held follows the new attributes."""
        self.attributes = attributes

    def release(self) -> None:
        """The toxic is being removed: pass everything on now, the end too if it has come."""

    def close(self) -> None:
        """The connection is gone: drop everything, cancel timers."""

    def hit(self, size: int) -> None:
        """Count a piece of so many bytes."""
        hits = self.toxic.hits
        hits.chunks += 1
        hits.bytes += size
        if not self._counted:
            self._counted = True
            hits.connections += 1

    def hit_close(self) -> None:
        """Count an ended connection."""
        self.toxic.hits.closed += 1
        if not self._counted:
            self._counted = True
            self.toxic.hits.connections += 1


def as_bytes(data: bytes | FilledPipe) -> bytes:
    """The piece as bytes, wherever it is."""
    return data if isinstance(data, bytes) else data.to_bytes()
