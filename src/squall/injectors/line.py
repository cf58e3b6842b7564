"""network.delay, network.reorder and network.bandwidth by a delay line: packets go through a process of Squall's."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from squall.errors import SquallError
from squall.faults.network import BandwidthLimit, Delay, NetworkFault
from squall.faults.network import Reorder as ReorderFault
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.network import Chosen, chosen, filter_works, share_of, workers
from squall.kernel import namespaces
from squall.kernel.bpf import loads
from squall.kernel.fresh_netns import tried
from squall.kernel.namespaces import NetworkNamespace
from squall.kernel.netlink import Netlink
from squall.workers.network.match import Strike
from squall.workers.network.schedule import Rate, Reorder, Shape
from squall.workers.network.tap import ETHERNET, Tap

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["FLUSH_S", "LineInjector", "line_works", "out_of_reach", "shape_of", "waiting_bytes", "within"]

T = TypeVar("T")

FLUSH_S = 0.5
"""What is held when the fault ends is let go at once; that takes a moment."""
_WAITING_LEAST, _WAITING_MOST = 64 << 10, 64 << 20
_PACKETS_PER_S = 30_000


class LineInjector:
    """A program on the interfaces sends packets to a TAP device; a process holds them and puts them back on their way."""

    mechanism: ClassVar[str] = "line"
    faults: ClassVar[tuple[str, ...]] = ("network.delay", "network.reorder", "network.bandwidth")
    summary: ClassVar[str] = (
        f"packets through a TAP device and a process of Squall's: 0.3 ms, {_PACKETS_PER_S} packets/s"
    )
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return line_works() if filter_works().works else filter_works()

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, NetworkFault):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        found_shape = shape_of(fault)
        if found_shape is None:
            return Refusal(self.mechanism, f"holds packets; {fault.type} is none of its faults")
        try:
            found = chosen(fault, target, site)
            missed = out_of_reach(found)
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))
        share = share_of(fault.percent) if isinstance(fault, Delay) else share_of(1.0)
        more = {"strike": asdict(Strike("divert", share)), "shape": asdict(found_shape)}
        made = workers(
            found, site, "squall.workers.network.delay", _purpose(fault, target), [more] * len(found.configs)
        )
        several = ("each network namespace has a queue and a rate of its own",) if len(found.configs) > 1 else ()
        return Plan(
            self.mechanism,
            (*found.before, *(replace(one, linger_s=FLUSH_S) for one in made)),
            accuracy=f"0.3 ms on an idle machine; {_PACKETS_PER_S} packets/s, what is more is dropped and counted",
            accuracy_ns=300_000,
            cost=1,
            not_covered=(
                *found.not_covered,
                *missed,
                *several,
                "packets' own marks and priorities: a line takes them off",
            ),
        )


def shape_of(fault: NetworkFault) -> Shape | None:
    """What a line is to do for this fault; None for a fault that it has nothing to do with."""
    if isinstance(fault, Delay):
        return Shape(int(fault.latency), int(fault.jitter), float(fault.correlation), fault.distribution)
    if isinstance(fault, ReorderFault):
        return Shape(int(fault.latency), reorder=Reorder(float(fault.percent), float(fault.correlation), fault.gap))
    if isinstance(fault, BandwidthLimit):
        rate = int(fault.rate)
        return Shape(rate=Rate(rate, per_flow=fault.per == "flow"), limit_bytes=waiting_bytes(rate))
    return None


def waiting_bytes(rate: int) -> int:
    """What may wait for a bandwidth of so many bytes/s: what passes in a second, within bounds."""
    return min(_WAITING_MOST, max(_WAITING_LEAST, rate))


def _purpose(fault: NetworkFault, target: Target) -> str:
    whose = f"packets ({fault.direction}) of {target.label}"
    if isinstance(fault, Delay):
        jitter = f" +- {fault.jitter}" if fault.jitter else ""
        return f"hold {fault.percent} of the {whose} for {fault.latency}{jitter}"
    if isinstance(fault, ReorderFault):
        return f"let {fault.percent} of the {whose} overtake those held for {fault.latency}"
    assert isinstance(fault, BandwidthLimit)  # noqa: S101 - `shape_of` has said so
    return f"let {whose} pass at {fault.rate} {'each flow' if fault.per == 'flow' else 'together'}"


def out_of_reach(found: Chosen) -> tuple[str, ...]:
    """The interfaces whose packets no delay line can take, in words for a plan."""

    def look() -> list[str]:
        with Netlink() as netlink:
            return [link.name for link in netlink.links() if link.up and link.header != ETHERNET]

    names = sorted({name for config in found.configs for name in within(config["netns"], look)})
    return tuple(f"packets on {name}: it has no Ethernet headers" for name in names)


def within(netns: dict[str, Any], call: Callable[[], T]) -> T:
    """What `call` returns in this network namespace."""
    fd = NetworkNamespace.from_json(netns).open()
    try:
        return namespaces.inside(fd, call)
    finally:
        os.close(fd)


@cache
def line_works() -> Capability:
    """Whether a delay line can be had: its programs, and a TAP device, really made."""
    answer = loads("line")
    if not answer.works:
        return Capability(answer.works, answer.reason)
    try:
        tried(lambda: Tap(1500).close())
    except OSError as error:
        return Capability(works=False, reason=f"a TAP device cannot be made: {error}")
    return Capability(works=True)
