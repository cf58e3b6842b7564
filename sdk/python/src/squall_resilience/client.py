"""What a client of another service or of a database is given when it says nothing: time-outs and bounded pools.

A client library's own defaults wait for minutes or for ever, and open connections without end. These are explicit.
"""

from __future__ import annotations

from dataclasses import dataclass

from squall_resilience.errors import Problem
from squall_resilience.settings import Settings, count, seconds

__all__ = ["ClientSettings", "PoolSettings"]


@dataclass(frozen=True)
class ClientSettings(Settings):
    """Time-outs and pool of a client, the innermost link of a chain; every adapter takes them.

    Durations are in seconds. A time-out bounds one wait of the socket, not a whole answer: that is what a `Timeout` or
    a deadline does; each wait is also cut to what is left of the deadline.
    """

    connect_timeout: float = seconds(3.0, low=0.001, high=600.0)
    """To be connected, TLS included."""
    read_timeout: float = seconds(3.0, low=0.001, high=600.0)
    """Between two pieces of an answer."""
    write_timeout: float = seconds(3.0, low=0.001, high=600.0)
    """Between two pieces of a request."""
    pool_timeout: float = seconds(3.0, low=0.0, high=600.0)
    """For a free connection when the pool has none."""
    connections: int = count(100, low=1, high=65_535)
    """Connections in all."""
    per_host: int = count(100, low=1, high=65_535)
    """Connections to one host and port."""
    idle: float = seconds(60.0, low=0.0, high=86_400.0)
    """How long a connection that nobody uses is kept."""

    def conflicts(self) -> list[Problem]:
        """More connections to one host than in all."""
        if self.per_host > self.connections:
            return [
                Problem("per_host", str(self.per_host), f"at most what `connections` allows in all, {self.connections}")
            ]
        return []


@dataclass(frozen=True)
class PoolSettings(Settings):
    """A pool of connections to a database; durations in seconds."""

    size: int = count(5, low=1, high=10_000)
    """Connections that are kept open."""
    overflow: int = count(10, low=0, high=10_000)
    """Further ones while all of these are in use, closed when they come back and are not needed."""
    wait: float = seconds(3.0, low=0.0, high=600.0)
    """For a free connection when all are in use."""
    recycle: float = seconds(3600.0, low=1.0, high=604_800.0)
    """The age at which a connection is replaced when it is taken next."""
