"""Queueing disciplines as netlink takes them: options of prio and netem (linux/pkt_sched.h, tc-prio(8), tc-netem(8)). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from squall.kernel.netlink import NEWQDISC, ROOT, attribute, text_attribute

if TYPE_CHECKING:
    from squall.kernel.netlink import Netlink, Qdisc

__all__ = ["PRIO_BANDS", "Netem", "band", "change_qdisc", "is_root", "prio_options"]

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


def prio_options() -> bytes:
    """TCA_OPTIONS of the prio in which a discipline of ours has a band."""
    return struct.pack("<i", PRIO_BANDS) + _PRIORITIES


def band(root: int) -> int:
    """The class of that band below a prio with this handle: also the priority by which a packet gets there."""
    return root | PRIO_BANDS


def is_root(one: Qdisc) -> bool:
    """Whether it is an interface's own queue, and not one within it, nor the place for filters."""
    return one.parent == ROOT and one.kind not in ("clsact", "ingress")


def change_qdisc(netlink: Netlink, index: int, kind: str, parent: int, handle: int, options: bytes) -> None:
    """Give a discipline that is there other parameters; what waits in it stays. NetlinkError when it is not there."""
    where = struct.pack("<BxHiIII", 0, 0, index, handle, parent, 0)
    netlink.request(NEWQDISC, where + text_attribute(1, kind) + attribute(2, options))


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
