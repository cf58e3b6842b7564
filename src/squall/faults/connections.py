"""Which connections of a service are meant, where no proxy stands in its configuration: what tcp.* and http.* share."""

from __future__ import annotations

from typing import Literal

from squall.faults.base import Fault
from squall.faults.network import Peers, Ports

__all__ = ["ConnectionFault"]


class ConnectionFault(Fault):
    """The base of faults on connections. On a route all of them are meant, and nothing of this may be given."""

    connections: Literal["inbound", "outbound"] | None = None
    """Those that the target is offered (`inbound`, also when nothing is said), or those that it makes (`outbound`)."""
    ports: Ports = ()
    """The service's: inbound some of those that the target listens on, outbound those that it connects to; else all."""
    peers: Peers = ()
    """Who is at the other end, clients or servers: addresses, networks (10.0.0.0/8) or host names; else all."""
    established: Literal["close", "leave"] | None = None
    """What is open when the fault begins: `close` (also when nothing is said), so that clients come back and are hit."""
    descendants: bool = False
    """For a process: the processes below it as well."""

    def selection(self) -> tuple[str, ...]:
        """Which of these were given, as a document spells them."""
        return tuple(name for name in ConnectionFault.model_fields if getattr(self, name) not in (None, (), False))
