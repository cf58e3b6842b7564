"""network.delay, network.reorder and network.bandwidth by the kernel's own netem, for what a target sends."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from squall.actions import RootQdisc
from squall.errors import SquallError
from squall.faults.network import BandwidthLimit, Delay, NetworkFault
from squall.faults.network import Reorder as ReorderFault
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.line import waiting_bytes, within
from squall.injectors.network import Chosen, chosen, filter_works, share_of, workers
from squall.kernel.fresh_netns import tried
from squall.kernel.netlink import Link, Netlink
from squall.kernel.queues import Netem, band, is_root, prio_options
from squall.workers.network.interfaces import is_own
from squall.workers.network.match import Strike

if TYPE_CHECKING:
    from squall.actions import Action, Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["NetemInjector", "netem_of"]

_HANDLE = 0x5CA0_0000
"""Of the root that is put there; what is below it has the next one."""
_ETHERNET = 14
_PACKET_LEAST = 64


class NetemInjector:
    """A prio at the root of each interface's queue, netem in a band of its own, and the filter that sends packets there."""

    mechanism: ClassVar[str] = "netem"
    faults: ClassVar[tuple[str, ...]] = ("network.delay", "network.reorder", "network.bandwidth")
    summary: ClassVar[str] = (
        "the kernel's netem at the interfaces' queues: 0.1 ms; only what is sent, only default queues"
    )
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return _has_netem() if filter_works().works else filter_works()

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, NetworkFault):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        netem = netem_of(fault, site.seed)
        if isinstance(netem, str):
            return Refusal(self.mechanism, netem)
        try:
            found = chosen(fault, target, site)
            queues = self._queues(found, netem)
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))
        if isinstance(queues, str):
            return Refusal(self.mechanism, queues)
        share = share_of(fault.percent) if isinstance(fault, Delay) else share_of(1.0)
        strike = {"strike": asdict(Strike("classify", share, class_=band(_HANDLE)))}
        what = f"send packets of {target.label} to netem ({fault.type})"
        made = workers(found, site, "squall.workers.network.strike", what, [strike] * len(found.configs))
        return Plan(
            self.mechanism,
            (*found.before, *queues, *made),
            accuracy="to the kernel's timers: 0.1 ms; each interface has a queue and a rate of its own",
            accuracy_ns=100_000,
            cost=2,
            not_covered=(
                *found.not_covered,
                "interfaces that come later",
                "packets' own priorities: netem's band takes them off",
            ),
        )

    def _queues(self, found: Chosen, netem: Netem) -> tuple[Action, ...] | str:
        """One for each interface; or which of them has a queue that somebody configured."""
        queues: list[Action] = []
        for config in found.configs:
            for link, root in within(config["netns"], _interfaces):
                if root:
                    return f"{link.name} has a queue that somebody configured ({root}): it is not replaced"
                queues.append(
                    RootQdisc(config["netns"], link.name, link.index, "netem", netem.options().hex(), _HANDLE)
                )
        return tuple(queues) if queues else "there is no interface that is up"


def netem_of(fault: NetworkFault, seed: int) -> Netem | str:
    """Netem's parameters for this fault, or why it has none."""
    if fault.direction != "egress":
        return f"an interface's queue is on its way out: it cannot do {fault.direction}"
    if isinstance(fault, Delay):
        found = Netem(int(fault.latency), int(fault.jitter), float(fault.correlation), distribution=fault.distribution)
    elif isinstance(fault, ReorderFault):
        found = Netem(
            int(fault.latency),
            gap=fault.gap,
            reorder=float(fault.percent),
            reorder_correlation=float(fault.correlation),
        )
    elif isinstance(fault, BandwidthLimit):
        if fault.per == "flow":
            return "its rate is for all together, not for each flow"
        packets = max(_PACKET_LEAST, waiting_bytes(int(fault.rate)) // 1500)
        found = Netem(rate=int(fault.rate), overhead=-_ETHERNET, limit=packets)
    else:
        return f"holds packets; {fault.type} is none of its faults"
    return replace(found, seed=seed)


def _interfaces() -> list[tuple[Link, str]]:
    """Those that are up and where the filter is attached, each with the queue that somebody configured on it, if any."""
    with Netlink() as netlink:
        roots = {one.index: one for one in netlink.qdiscs() if is_root(one)}
        up = [link for link in netlink.links() if link.up and is_own(link)]
    configured = {index: f"{root.kind} {root.handle >> 16:x}:" for index, root in roots.items() if root.handle}
    return [(link, configured.get(link.index, "")) for link in up]


@cache
def _has_netem() -> Capability:
    """Whether this kernel has netem and prio: both are really put on an interface of a namespace that is made for it."""

    def put() -> None:
        with Netlink() as netlink:
            netlink.add_qdisc(1, "prio", handle=_HANDLE, options=prio_options())
            netlink.add_qdisc(
                1, "netem", parent=band(_HANDLE), handle=_HANDLE + 0x1_0000, options=Netem(1000).options()
            )

    try:
        tried(put)
    except OSError as error:
        return Capability(works=False, reason=f"this kernel has no netem below a prio: {error}")
    return Capability(works=True)
