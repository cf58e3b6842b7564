"""Which packets are meant, as the maps of bpf/network.bpf.c hold it. Pure: nothing here touches the kernel."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ALWAYS", "Match", "Networks", "Strike", "Verdict", "is_name", "pack_settings"]

Verdict = Literal["drop", "corrupt", "duplicate", "divert", "classify"]
Ranges = tuple[tuple[int, int], ...]
Networks = dict[tuple[int, int, bytes], int]
"""By IP version, length of the prefix and address: who it is (PEER, ZONE_A, ZONE_B)."""

ALWAYS = 0xFFFF_FFFF
_VERDICTS: dict[Verdict, int] = {"drop": 0, "corrupt": 1, "duplicate": 2, "divert": 3, "classify": 4}
_SCOPES = {"netns": 0, "cgroup": 1, "process": 2}
_WAYS = {"egress": 1, "ingress": 2, "both": 3}
_PROTOCOLS = {"any": 0, "icmp": 1, "tcp": 6, "udp": 17}
_ACROSS = {"a-to-b": 16, "b-to-a": 32, "both": 48}
_ASKS_PEERS = 8
_PEER, _ZONE_A, _ZONE_B = 1, 2, 4
_WORDS = 1024
"""64 ports each."""
_SETTINGS = struct.Struct("<IIIIIIIIQII")


def is_name(peer: str) -> bool:
    """Whether it is a host name, which has to be resolved, and neither an address nor a network."""
    try:
        ip_network(peer)
    except ValueError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Match:
    """The filter of a network fault. Ports as (first, last); peers and zones as they were written."""

    direction: Literal["egress", "ingress", "both"] = "egress"
    protocol: Literal["any", "tcp", "udp", "icmp"] = "any"
    ports: Ranges = ()
    local_ports: Ranges = ()
    remote_ports: Ranges = ()
    peers: tuple[str, ...] = ()
    zone_a: tuple[str, ...] = ()
    zone_b: tuple[str, ...] = ()
    across: Literal["both", "a-to-b", "b-to-a"] = "both"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` gave, lists for tuples."""
        fields = dict(data)
        for name in ("ports", "local_ports", "remote_ports"):
            fields[name] = tuple((int(low), int(high)) for low, high in fields.get(name, ()))
        for name in ("peers", "zone_a", "zone_b"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The host names in it."""
        return tuple(one for one in (*self.peers, *self.zone_a, *self.zone_b) if is_name(one))

    @property
    def ways(self) -> tuple[Literal["egress", "ingress"], ...]:
        """The directions, one by one."""
        return ("egress", "ingress") if self.direction == "both" else (self.direction,)

    def asks(self) -> int:
        """What of the maps counts."""
        kinds = (self.ports, self.local_ports, self.remote_ports)
        bits = sum(1 << kind for kind, ranges in enumerate(kinds) if ranges)
        if self.peers:
            bits |= _ASKS_PEERS
        return bits | (_ACROSS[self.across] if self.zone_a else 0)

    def port_words(self) -> dict[int, int]:
        """The words of the port map that are not zero."""
        words: dict[int, int] = {}
        for kind, ranges in enumerate((self.ports, self.local_ports, self.remote_ports)):
            for low, high in ranges:
                for port in range(low, high + 1):
                    key = kind * _WORDS + (port >> 6)
                    words[key] = words.get(key, 0) | 1 << (port & 63)
        return words

    def networks(self, resolved: Mapping[str, Iterable[str]]) -> Networks:
        """Who is in which networks; a name counts for the addresses that it is resolved to.

        The kernel finds the longest prefix: of a network within the other zone's the more exact entry counts.
        """
        found: Networks = {}
        for bit, peers in ((_PEER, self.peers), (_ZONE_A, self.zone_a), (_ZONE_B, self.zone_b)):
            for peer in peers:
                for text in resolved.get(peer, ()) if is_name(peer) else (peer,):
                    network = ip_network(text)
                    key = (network.version, network.prefixlen, network.network_address.packed)
                    found[key] = found.get(key, 0) | bit
        return found


@dataclass(frozen=True, slots=True)
class Strike:
    """What becomes of packets that match: of a share of them, drawn with netem's correlation. 0 to ALWAYS."""

    verdict: Verdict
    share: int = ALWAYS
    correlation: int = 0
    class_: int = field(default=0)
    """For "classify": the class of the interface's queue, major << 16 | minor."""


def pack_settings(match: Match, strike: Strike, scope: str, cgroup: int = 0, level: int = 0) -> bytes:
    """The `struct settings` of network.bpf.c. `scope` is netns, cgroup or process; `level` 0: the cgroup's depth is not known."""
    return _SETTINGS.pack(
        _VERDICTS[strike.verdict], strike.share, strike.correlation, _WAYS[match.direction], _PROTOCOLS[match.protocol],
        match.asks(), _SCOPES[scope], level, cgroup, strike.class_, 0,
    )  # fmt: skip
