"""Faults on packets, for programs that know nothing of it. Percentages, correlation and reordering mean what netem means.

netem(8) draws for each packet x = correlation * (x before) + (1 - correlation) * (a fresh draw), and hits where x is below
the percentage: with a correlation hits come in bursts, and their share is nearer to none or all than what was asked.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema, model_validator

from squall.faults.base import Fault
from squall.faults.frozen import Rows
from squall.units import Bandwidth, Duration, Ratio, Within

__all__ = [
    "BandwidthLimit",
    "Corrupt",
    "Delay",
    "Duplicate",
    "Loss",
    "NetworkFault",
    "Partition",
    "PeerName",
    "Port",
    "Reorder",
    "port_range",
]

_HUNDRED = Ratio.parse("100%")
_PORTS = r"[0-9]{1,5}(-[0-9]{1,5})?"
_PORT_MOST = 65535
_LISTED_MOST = 64
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


def _port(value: object) -> int | str:
    """A port or a range as it is kept: 80, "8000-8100"."""
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(_PORTS, text):
        raise ValueError(f"{value!r} is neither a port nor a range of ports such as 8000-8100")
    low, high = port_range(text)
    if not 1 <= low <= high <= _PORT_MOST:
        raise ValueError(f"{text} is out of range: ports are 1 to {_PORT_MOST}, the smaller one first")
    return low if low == high else f"{low}-{high}"


def port_range(port: int | str) -> tuple[int, int]:
    """The first and the last port of what a fault holds: 80 -> (80, 80), "8000-8100" -> (8000, 8100)."""
    low, _, high = str(port).partition("-")
    return int(low), int(high or low)


def _peer(value: str) -> str:
    from ipaddress import ip_network

    if "/" in value or ":" in value or re.fullmatch(r"[0-9.]+", value):
        try:
            ip_network(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no address or network: {error}") from None
    elif len(value) > 253 or not _HOST.fullmatch(value):  # noqa: PLR2004 - RFC 1035
        raise ValueError(f"{value!r} is neither an address, a network such as 10.0.0.0/8, nor a host name")
    return value


Port = Annotated[
    Any,
    PlainValidator(_port),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _PORT_MOST},
                {"type": "string", "pattern": f"^{_PORTS}$"},
            ]
        }
    ),
]
"""One port (80) or a range ("8000-8100")."""
PeerName = Annotated[str, AfterValidator(_peer)]
"""An address, a network in CIDR form, or a host name, which is resolved when the run is planned and every few seconds."""
Ports = Annotated[Rows[Port], Field(max_length=_LISTED_MOST)]
Peers = Annotated[Rows[PeerName], Field(max_length=_LISTED_MOST)]


class NetworkFault(Fault):
    """What the network family shares: which of the target's packets are meant. What is not said, is not asked for."""

    direction: Literal["egress", "ingress", "both"] = "egress"
    """`egress`: what the target sends; `ingress`: what it receives."""
    protocol: Literal["any", "tcp", "udp", "icmp"] = "any"
    """`icmp` is ICMPv6 too."""
    ports: Ports = ()
    """At either end: ports, or ranges such as 8000-8100."""
    local_ports: Ports = ()
    """At the target's end."""
    remote_ports: Ports = ()
    """At the other end."""
    peers: Peers = ()
    """Who is at the other end: addresses, networks (10.0.0.0/8) or host names."""
    descendants: bool = False
    """For a process: the processes below it as well."""

    @model_validator(mode="after")
    def _ports_are_had(self) -> Self:
        if self.protocol == "icmp" and (self.ports or self.local_ports or self.remote_ports):
            raise ValueError("`ports` goes with tcp and udp: icmp has none")
        return self


_TARGETS = ("process", "cgroup", "netns")


class Delay(NetworkFault, type="network.delay", targets=_TARGETS):
    """Packets arrive late by `latency` +- `jitter`; with jitter they may overtake each other, as with netem."""

    latency: Annotated[Duration, Within("1us", "10m")]
    """How late."""
    jitter: Annotated[Duration, Within("0s", "10m")] = Duration(0)
    """How far it varies: evenly within +- jitter, or with jitter as the standard deviation of a normal distribution."""
    correlation: Ratio = Ratio(0)
    """How much each packet's delay depends on the one before."""
    distribution: Literal["uniform", "normal"] = "uniform"
    """Of the jitter."""
    percent: Ratio = _HUNDRED
    """The share of packets that are delayed; the others overtake them."""

    @model_validator(mode="after")
    def _jitter_to_shape(self) -> Self:
        if not self.jitter and (self.correlation or self.distribution != "uniform"):
            raise ValueError("`correlation` and `distribution` go with `jitter`: without it there is nothing to draw")
        return self


class Loss(NetworkFault, type="network.loss", targets=_TARGETS):
    """Packets get lost: TCP sends them again and slows down, UDP does without them."""

    percent: Ratio
    """The share that is lost."""
    correlation: Ratio = Ratio(0)
    """How much each draw depends on the one before."""


class Duplicate(NetworkFault, type="network.duplicate", targets=_TARGETS):
    """Packets arrive twice."""

    percent: Ratio
    """The share that does."""
    correlation: Ratio = Ratio(0)
    """How much each draw depends on the one before."""


class Corrupt(NetworkFault, type="network.corrupt", targets=_TARGETS):
    """Packets arrive with one wrong bit; their checksum shows it, and whoever receives them throws them away."""

    percent: Ratio
    """The share that is hit."""
    correlation: Ratio = Ratio(0)
    """How much each draw depends on the one before."""


class Reorder(NetworkFault, type="network.reorder", targets=_TARGETS):
    """Packets are held for `latency`, but a share of them leaves at once and so overtakes those that are held."""

    percent: Ratio
    """The share that overtakes."""
    latency: Annotated[Duration, Within("1us", "10m")] = Duration.parse("10ms")
    """How long the others are held."""
    correlation: Ratio = Ratio(0)
    """How much each draw depends on the one before."""
    gap: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Each `gap`-th packet is one of which the share is drawn; the others are held."""


class BandwidthLimit(NetworkFault, type="network.bandwidth", targets=_TARGETS):
    """Data passes at no more than `rate`; what does not fit waits, and is lost when too much waits."""

    rate: Annotated[Bandwidth, Within("1kbit", "100gbit")]
    """The limit, with all headers from the network layer on."""
    per: Literal["flow", "all"] = "all"
    """Of each connection (addresses, ports, protocol) for itself, or of all that is meant, together."""


class Partition(NetworkFault, type="network.partition", targets=_TARGETS):
    """Nothing passes: between the target and `peers` (all, where none are named), or between two zones of addresses."""

    direction: Literal["egress", "ingress", "both"] = "both"
    """`egress`: the target is not heard; `ingress`: it hears nothing; `both`: it is cut off."""
    zone_a: Peers = ()
    """Addresses, networks or host names on one side of the cut."""
    zone_b: Peers = ()
    """Those on the other side; packets within a zone pass."""
    across: Literal["both", "a-to-b", "b-to-a"] = "both"
    """Which way between the zones nothing passes."""

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        if bool(self.zone_a) != bool(self.zone_b):
            raise ValueError("`zoneA` and `zoneB` belong together: a cut has two sides")
        if self.zone_a and self.peers:
            raise ValueError("give either `peers` or the two zones")
        if not self.zone_a and self.across != "both":
            raise ValueError("`across` goes with `zoneA` and `zoneB`; without them `direction` says which way")
        return self
