"""tcp.delay inside the kernel: through packets' departure times where an interface's queue knows them, else a delay line."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from squall.actions import RootQdisc
from squall.errors import CannotInject, SquallError
from squall.faults import network
from squall.faults.tcp import PolicyDelay
from squall.faults.tcp_policy import policy_end
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.line import FLUSH_S, line_works, out_of_reach, within
from squall.injectors.network import Chosen, chosen, filter_works, workers
from squall.kernel.bpf import loads
from squall.kernel.fresh_netns import tried
from squall.kernel.netlink import Link, Netlink
from squall.kernel.queues import fq_queue, is_root
from squall.units import Duration
from squall.workers.network.interfaces import is_own
from squall.workers.network.tcp_policy import knows_departure_times

if TYPE_CHECKING:
    from squall.actions import Action, Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["PolicyByLine", "PolicyByQueue", "has_fq"]

_FQ_HORIZON_NS = 9_000_000_000
"""fq drops packets whose departure is more than 10 s away (tc-fq(8), horizon)."""
_FQ_HANDLE = 0x5CA2_0000
_SHOWN = 4
_NOT_COVERED = (
    "handshakes, bare acknowledgements, and FIN and RST without data pass at once",
    "a congestion control that goes by the smallest round trip (BBR) takes the handshake's for it, and slows down much more",
)


class _ByPolicy:
    """What the two have in common."""

    mechanism: ClassVar[str]
    faults: ClassVar[tuple[str, ...]] = ("tcp.delay",)
    recoverability: ClassVar[Recoverability] = "lease"

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:
        """The steps, or the reason why not."""
        if not isinstance(fault, PolicyDelay):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        try:
            found = chosen(network.Delay(latency=Duration.parse("1ms"), protocol="tcp"), target, site)
            return self._plan(fault, target, site, found)
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))

    def _plan(self, fault: PolicyDelay, target: Target, site: Site, found: Chosen) -> Plan | Refusal:
        raise NotImplementedError

    def _steps(self, fault: PolicyDelay, target: Target, site: Site, found: Chosen) -> tuple[Action, ...]:
        policy = [[*policy_end(end), int(delay)] for end, delay in fault.policy.items()]
        words = ", ".join(f"{end} {delay}" for end, delay in list(fault.policy.items())[:_SHOWN])
        purpose = f"hold TCP data of {target.label}: {words}{', ...' if len(fault.policy) > _SHOWN else ''}"
        more = [{"policy": policy, "how": self.mechanism}] * len(found.configs)
        made = workers(found, site, "squall.workers.network.tcp_policy", purpose, more)
        return (*found.before, *(replace(one, linger_s=FLUSH_S) for one in made))


class PolicyByQueue(_ByPolicy):
    """Data gets a departure time, and the interface's fq keeps it until then."""

    mechanism: ClassVar[str] = "fq"
    summary: ClassVar[str] = (
        "packets' departure times, kept by the fq that an interface has; exact to a timer's lateness"
    )

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return _programs_attach() if has_fq().works else has_fq()

    def _plan(self, fault: PolicyDelay, target: Target, site: Site, found: Chosen) -> Plan | Refusal:
        if max(fault.policy.values()) > _FQ_HORIZON_NS:
            return Refusal(self.mechanism, "fq drops what is to leave more than 10 s later")
        queues, there = _queues(found), "there already"
        if queues:
            there = "put on " + ", ".join(sorted({one.interface for one in queues}))
        return Plan(
            self.mechanism,
            (*queues, *self._steps(fault, target, site, found)),
            accuracy=f"to the kernel's timers: 0.1 ms; fq is {there}",
            accuracy_ns=100_000,
            cost=1,
            not_covered=(*_NOT_COVERED, *found.not_covered, "interfaces that come later without fq"),
        )


class PolicyByLine(_ByPolicy):
    """Data goes through a TAP device to a process that holds it, and back."""

    mechanism: ClassVar[str] = "line"
    summary: ClassVar[str] = "packets through a TAP device and a process of Squall's: 0.3 ms, 30 000 packets/s"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102
        return line_works() if _programs_attach().works else _programs_attach()

    def _plan(self, fault: PolicyDelay, target: Target, site: Site, found: Chosen) -> Plan | Refusal:
        return Plan(
            self.mechanism,
            self._steps(fault, target, site, found),
            accuracy="0.3 ms on an idle machine; 30 000 packets/s, what is more is dropped",
            accuracy_ns=300_000,
            cost=1,
            not_covered=(*_NOT_COVERED, *found.not_covered, *out_of_reach(found)),
        )


def _queues(found: Chosen) -> tuple[RootQdisc, ...]:
    """An fq for each interface that has none; CannotInject names one whose other queue somebody configured."""

    def look() -> list[tuple[Link, str]]:
        with Netlink() as netlink:
            roots = {one.index: one for one in netlink.qdiscs() if is_root(one)}
            wanting = [
                link
                for link in netlink.links()
                if link.up and is_own(link) and not knows_departure_times(netlink, link.index)
            ]
        return [
            (link, roots[link.index].kind if link.index in roots and roots[link.index].handle else "")
            for link in wanting
        ]

    queues = []
    for config in found.configs:
        for link, configured in within(config["netns"], look):
            if configured:
                raise CannotInject(
                    f"{link.name} has a queue that somebody configured ({configured}): it is not replaced by fq"
                )
            queues.append(RootQdisc(config["netns"], link.name, link.index, fq_queue(_FQ_HANDLE)))
    return tuple(queues)


@cache
def _programs_attach() -> Capability:
    """Whether the program is taken by the verifier, and can be put on interfaces."""
    answer = loads("tcp_policy", ("egress",))
    return filter_works() if answer.works else Capability(answer.works, answer.reason)


@cache
def has_fq() -> Capability:
    """Whether this kernel has fq: one is really put on an interface of a namespace that is made for it."""

    def put() -> None:
        with Netlink() as netlink:
            netlink.add_qdisc(1, "fq")

    try:
        tried(put)
    except OSError as error:
        return Capability(False, f"this kernel has no fq: {error}")
    return Capability(True)
