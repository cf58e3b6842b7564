"""network.delay, network.reorder and network.bandwidth by the kernel's own queues (netem, htb), for what a target sends."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from squall.actions import RootQdisc
from squall.errors import CannotInject, SquallError
from squall.faults.network import BandwidthLimit, Delay, NetworkFault
from squall.faults.network import Reorder as ReorderFault
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.line import waiting_bytes, within
from squall.injectors.network import Chosen, chosen, filter_works, share_of, workers
from squall.kernel.fresh_netns import tried
from squall.kernel.netlink import Link, Netlink
from squall.kernel.queues import Layer, Netem, htb_queue, is_root, netem_queue, put
from squall.workers.network.interfaces import is_own
from squall.workers.network.match import Strike

if TYPE_CHECKING:
    from squall.actions import Action, Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["HtbInjector", "NetemInjector", "netem_of"]

_HANDLE = 0x5CA0_0000
"""Of the root that is put there; what is below it has the next one."""
_ETHERNET = 14
_PACKET_LEAST = 64


class _ByQueue:
    """What the two have in common."""

    mechanism: ClassVar[str]
    recoverability: ClassVar[Recoverability] = "guarded"
    accuracy: ClassVar[str]
    accuracy_ns: ClassVar[int]

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:
        """The steps, or the reason why not."""
        if not isinstance(fault, NetworkFault):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        if fault.direction != "egress":
            return Refusal(self.mechanism, f"an interface's queue is on its way out: it cannot do {fault.direction}")
        queue = self._queue(fault, site)
        if isinstance(queue, str):
            return Refusal(self.mechanism, queue)
        layers, class_ = queue
        try:
            found = chosen(fault, target, site)
            queues = _queues(found, layers)
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))
        share = share_of(fault.percent) if isinstance(fault, Delay) else share_of(1.0)
        strike = {"strike": asdict(Strike("classify", share, class_=class_))}
        what = f"send packets of {target.label} to {self.mechanism} ({fault.type})"
        made = workers(found, site, "squall.workers.network.strike", what, [strike] * len(found.configs))
        return Plan(
            self.mechanism,
            (*found.before, *queues, *made),
            accuracy=f"{self.accuracy}; each interface has a queue and a rate of its own",
            accuracy_ns=self.accuracy_ns,
            cost=2,
            not_covered=(
                *found.not_covered,
                "interfaces that come later",
                "packets' own priorities: a class takes their place",
            ),
        )

    def _queue(self, fault: NetworkFault, site: Site) -> tuple[tuple[Layer, ...], int] | str:
        """The queue for this fault and the priority that leads into it, or why there is none."""
        raise NotImplementedError


class NetemInjector(_ByQueue):
    """A prio at the root of each interface's queue, netem in a band of its own, and the filter that sends packets there."""

    mechanism: ClassVar[str] = "netem"
    faults: ClassVar[tuple[str, ...]] = ("network.delay", "network.reorder", "network.bandwidth")
    summary: ClassVar[str] = (
        "the kernel's netem at the interfaces' queues: 0.1 ms; only what is sent, only default queues"
    )
    accuracy: ClassVar[str] = "to the kernel's timers: 0.1 ms"
    accuracy_ns: ClassVar[int] = 100_000

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return _queue_works("netem") if filter_works().works else filter_works()

    def _queue(self, fault: NetworkFault, site: Site) -> tuple[tuple[Layer, ...], int] | str:
        netem = netem_of(fault, site.seed)
        return netem if isinstance(netem, str) else netem_queue(_HANDLE, netem)


class HtbInjector(_ByQueue):
    """An htb at the root of each interface's queue, a class with the rate, and the filter that sends packets there."""

    mechanism: ClassVar[str] = "htb"
    faults: ClassVar[tuple[str, ...]] = ("network.bandwidth",)
    summary: ClassVar[str] = (
        "the kernel's htb at the interfaces' queues: any rate; only what is sent, only default queues"
    )
    accuracy: ClassVar[str] = "within 2 % over a second, Ethernet's headers counted as well"
    accuracy_ns: ClassVar[int] = 5_000_000

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102
        return _queue_works("htb") if filter_works().works else filter_works()

    def _queue(self, fault: NetworkFault, site: Site) -> tuple[tuple[Layer, ...], int] | str:  # noqa: ARG002
        if not isinstance(fault, BandwidthLimit):
            return f"knows nothing of {fault.type}"
        if fault.per == "flow":
            return "its rate is for all together, not for each flow"
        return htb_queue(_HANDLE, int(fault.rate))


def _queues(found: Chosen, layers: tuple[Layer, ...]) -> tuple[Action, ...]:
    """One for each interface; CannotInject names one whose queue somebody configured."""
    queues: list[Action] = []
    for config in found.configs:
        for link, root in within(config["netns"], _interfaces):
            if root:
                raise CannotInject(f"{link.name} has a queue that somebody configured ({root}): it is not replaced")
            queues.append(RootQdisc(config["netns"], link.name, link.index, layers))
    if not queues:
        raise CannotInject("there is no interface that is up")
    return tuple(queues)


def netem_of(fault: NetworkFault, seed: int) -> Netem | str:
    """Netem's parameters for this fault, or why it has none."""
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
def _queue_works(kind: Literal["netem", "htb"]) -> Capability:
    """Whether this kernel has such a queue: one is really put on an interface of a namespace that is made for it."""
    layers, _ = netem_queue(_HANDLE, Netem(1000)) if kind == "netem" else htb_queue(_HANDLE, 1_000_000)

    def try_it() -> None:
        with Netlink() as netlink:
            for layer in layers:
                put(netlink, 1, layer)

    try:
        tried(try_it)
    except OSError as error:
        kinds = " with ".join(dict.fromkeys(layer[1] for layer in layers))
        return Capability(works=False, reason=f"this kernel has no {kinds}: {error}")
    return Capability(works=True)
