"""Queues as netlink takes them: prio with netem, htb (linux/pkt_sched.h, tc-prio(8), tc-netem(8), tc-htb(8))."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from squall.kernel.netlink import CREATE, EXCLUSIVE, NEWCLASS, NEWQDISC, ROOT, attribute, text_attribute

if TYPE_CHECKING:
    from squall.kernel.netlink import Netlink, Qdisc

__all__ = ["Layer", "Netem", "fq_queue", "htb_queue", "is_root", "netem_queue", "put"]

Layer = tuple[str, str, int, int, str]
"""A part of a queue as the journal holds it: "qdisc" or "class", kind, parent, handle or number, TCA_OPTIONS in hex."""

PRIO_BANDS = 4
"""Three as the kernel's default has them, and one of ours."""
_PRIORITIES = bytes([1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
"""Bands by the priority of a socket, as pfifo_fast has them."""
_CORRELATIONS, _DISTRIBUTION, _REORDER, _RATE, _RATE64, _LATENCY64, _JITTER64, _SEED = 1, 2, 3, 6, 8, 10, 11, 14
"""TCA_NETEM_..."""
_WHOLE = 0xFFFF_FFFF
_TABLE = 4096
_SCALE = 8192
"""NETEM_DIST_SCALE: a standard deviation in a distribution's table."""
_RATE32_MOST = 0xFFFF_FFFF


_HTB_PARAMETERS, _HTB_INIT, _HTB_RATE64, _HTB_CEILING64 = 1, 2, 6, 7
_HTB_VERSION = 3
_ETHERNET_LAYER = 1
_TICK_NS = 64
"""PSCHED_SHIFT: what the kernel measures bursts in."""
_BURST_NS = 5_000_000
_BURST_LEAST, _QUANTUM = 3_028, 60_000
"""Bytes: two packets of 1500, or one frame that is yet to be cut, at a time."""


def is_root(one: Qdisc) -> bool:
    """Whether it is an interface's own queue, and not one within it, nor the place for filters."""
    return one.parent == ROOT and one.kind not in ("clsact", "ingress")


def put(netlink: Netlink, index: int, layer: Layer, *, new: bool = True) -> None:
    """Make a part of a queue, or give one that is there other parameters: what waits in it stays. NetlinkError if refused."""
    what, kind, parent, handle, options = layer
    where = struct.pack("<BxHiIII", 0, 0, index, handle, parent, 0)
    more = text_attribute(1, kind) + (attribute(2, bytes.fromhex(options)) if options else b"")
    netlink.request(NEWCLASS if what == "class" else NEWQDISC, where + more, CREATE | EXCLUSIVE if new else 0)


def netem_queue(handle: int, netem: Netem) -> tuple[tuple[Layer, ...], int]:
    """A prio that queues as the kernel's default does, with netem in a band of its own; and the priority that leads there."""
    root = struct.pack("<i", PRIO_BANDS) + _PRIORITIES
    band = handle | PRIO_BANDS
    below = ("qdisc", "netem", band, handle + 0x1_0000, netem.options().hex())
    return (("qdisc", "prio", ROOT, handle, root.hex()), below), band


def htb_queue(handle: int, bytes_per_s: int) -> tuple[tuple[Layer, ...], int]:
    """An htb that lets everything pass but one class, which has this rate; and the priority that leads there."""
    root = attribute(_HTB_INIT, struct.pack("<IIIII", _HTB_VERSION, 10, 0, 0, 0))
    rate32 = min(bytes_per_s, _RATE32_MOST)
    burst = max(_BURST_LEAST * 1_000_000_000 // bytes_per_s, _BURST_NS) // _TICK_NS
    rate = struct.pack("<BBHhHI", 0, _ETHERNET_LAYER, 0, 0, 0, rate32)
    limits = rate + rate + struct.pack("<IIIII", min(burst, _RATE32_MOST), min(burst, _RATE32_MOST), _QUANTUM, 0, 0)
    options = attribute(_HTB_PARAMETERS, limits)
    if bytes_per_s > _RATE32_MOST:
        options += attribute(_HTB_RATE64, struct.pack("<Q", bytes_per_s))
        options += attribute(_HTB_CEILING64, struct.pack("<Q", bytes_per_s))
    only = handle | 1
    return (("qdisc", "htb", ROOT, handle, root.hex()), ("class", "htb", handle, only, options.hex())), only


def fq_queue(handle: int) -> tuple[Layer, ...]:
    """Fq alone, as it is by default."""
    return (("qdisc", "fq", ROOT, handle, ""),)


@dataclass(frozen=True, slots=True)
class Netem:
    """netem's parameters: times in ns, shares and correlations 0 to 1, `rate` in bytes/s (0: none)."""

    latency_ns: int = 0
    jitter_ns: int = 0
    correlation: float = 0.0
    distribution: Literal["uniform", "normal"] = "uniform"
    reorder: float = 0.0
    reorder_correlation: float = 0.0
    gap: int = 0
    """0: none are reordered."""
    rate: int = 0
    overhead: int = 0
    """Added to each packet's length for the rate; may be negative."""
    limit: int = 100_000
    seed: int = 0

    def options(self) -> bytes:
        """TCA_OPTIONS. The seed is known from Linux 6.6 on, and not looked at before."""
        block = struct.pack("<IIIIII", 0, self.limit, 0, self.gap, 0, 0)
        block += attribute(_LATENCY64, struct.pack("<q", self.latency_ns))
        block += attribute(_JITTER64, struct.pack("<q", self.jitter_ns))
        block += attribute(_CORRELATIONS, struct.pack("<III", _share(self.correlation), 0, 0))
        block += attribute(_REORDER, struct.pack("<II", _share(self.reorder), _share(self.reorder_correlation)))
        if self.distribution == "normal":
            block += attribute(_DISTRIBUTION, _normal_table())
        if self.rate:
            block += attribute(_RATE, struct.pack("<IiIi", min(self.rate, _RATE32_MOST), self.overhead, 0, 0))
            if self.rate > _RATE32_MOST:
                block += attribute(_RATE64, struct.pack("<Q", self.rate))
        return block + attribute(_SEED, struct.pack("<Q", self.seed))


def _share(value: float) -> int:
    return min(_WHOLE, int(value * _WHOLE + 0.5))


def _normal_table() -> bytes:
    """The inverse of the normal distribution at the middles of as many equal parts, in netem's scale; +-4 deviations."""
    from statistics import NormalDist  # dear to import, and seldom needed

    inverse = NormalDist().inv_cdf
    values = (round(inverse((index + 0.5) / _TABLE) * _SCALE) for index in range(_TABLE))
    return struct.pack(f"<{_TABLE}h", *(max(-32768, min(32767, value)) for value in values))
