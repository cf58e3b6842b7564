"""tcp.delay inside the kernel: through packets' departure times where an interface's queue knows them, else a delay line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import KernelWorker, OwnCgroup
from squall.actions.own_cgroup import unified_cgroup
from squall.errors import SquallError, TargetError
from squall.faults.tcp_policy import PolicyDelay, policy_end
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.kernel import cgroups, namespaces
from squall.kernel.bpf import Collection, TcxHook, loads
from squall.kernel.fresh_netns import tried
from squall.kernel.namespaces import NetworkNamespace
from squall.kernel.netlink import Netlink
from squall.targets import CgroupTarget, NetnsTarget, ProcessTarget
from squall.workers.network.tap import Tap
from squall.workers.network.tcp_policy import knows_departure_times, reachable

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["PolicyByLine", "PolicyByQueue", "line_works"]

_FQ_HORIZON_NS = 9_000_000_000
"""fq drops packets whose departure is more than 10 s away (tc-fq(8), horizon)."""
_FLUSH_S = 0.5
"""What is held when the fault ends is let go at once; that takes a moment."""
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
            return self._plan(fault, target, site, _place(target))
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))

    def _plan(self, fault: PolicyDelay, target: Target, site: Site, place: _Place) -> Plan | Refusal:
        raise NotImplementedError

    def _steps(
        self, fault: PolicyDelay, target: Target, site: Site, place: _Place
    ) -> tuple[KernelWorker | OwnCgroup, ...]:
        policy = [[*policy_end(end), int(delay)] for end, delay in fault.policy.items()]
        words = ", ".join(f"{end} {delay}" for end, delay in list(fault.policy.items())[:_SHOWN])
        worker = KernelWorker(
            f"{site.run}/{site.fault}.{target.key}",
            "squall.workers.network.tcp_policy",
            f"hold TCP data of {target.label}: {words}{', ...' if len(fault.policy) > _SHOWN else ''}",
            {"netns": place.namespace.to_json(), "scope": place.scope, "policy": policy, "mechanism": self.mechanism},
            (f"{target.key}:tcp-policy",),
            _FLUSH_S,
        )
        if isinstance(target, ProcessTarget) and place.needs_a_cgroup:
            own = OwnCgroup(target.identity, target.label, f"{site.run}-{site.fault}.{target.identity.pid}")
            return (own, worker)
        return (worker,)


class PolicyByQueue(_ByPolicy):
    """Data gets a departure time, and the interface's fq keeps it until then."""

    mechanism: ClassVar[str] = "fq"
    summary: ClassVar[str] = (
        "packets' departure times, kept by the fq that an interface has; exact to a timer's lateness"
    )

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return _programs_attach() if _has_fq().works else _has_fq()

    def _plan(self, fault: PolicyDelay, target: Target, site: Site, place: _Place) -> Plan | Refusal:
        if max(fault.policy.values()) > _FQ_HORIZON_NS:
            return Refusal(self.mechanism, "fq drops what is to leave more than 10 s later")
        with_fq, without = _interfaces(place.namespace)
        if without or not with_fq:
            named = ", ".join(without) or "no interface"
            return Refusal(
                self.mechanism, f"{named} has no fq as its queue, so that departure times mean nothing there"
            )
        return Plan(
            self.mechanism,
            self._steps(fault, target, site, place),
            accuracy="to the kernel's timers: 0.1 ms",
            accuracy_ns=100_000,
            cost=1,
            not_covered=(*_NOT_COVERED, "interfaces that come later without fq"),
        )


class PolicyByLine(_ByPolicy):
    """Data goes through a TAP device to a process that holds it, and back."""

    mechanism: ClassVar[str] = "line"
    summary: ClassVar[str] = "packets through a TAP device and a process of Squall's: 0.3 ms, 50 000 packets/s"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102
        return line_works() if _programs_attach().works else _programs_attach()

    def _plan(self, fault: PolicyDelay, target: Target, site: Site, place: _Place) -> Plan | Refusal:
        return Plan(
            self.mechanism,
            self._steps(fault, target, site, place),
            accuracy="0.3 ms on an idle machine; 50 000 packets/s, what is more is dropped",
            accuracy_ns=300_000,
            cost=1,
            not_covered=(*_NOT_COVERED, *_out_of_reach(place.namespace)),
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the target's packets leave, and by what they are known."""

    namespace: NetworkNamespace
    scope: dict[str, Any]
    needs_a_cgroup: bool = False
    """A process in a root cgroup: nothing is attached there, so its new sockets cannot be noted."""


def _place(target: Target) -> _Place:
    """TargetError where the packets of such a target cannot be known."""
    if isinstance(target, NetnsTarget):
        return _Place(target.namespace, {"kind": "netns"})
    if isinstance(target, CgroupTarget):
        folder = target.unified
        if folder is None:
            raise TargetError(f"{target.label} is a cgroup of v1: packets are known by those of v2")
        scope = {"kind": "cgroup", "cgroup": folder, "cgroup_id": os.stat(folder).st_ino}  # noqa: PTH116
        return _Place(_network_of(target, target.processes()), scope)
    if isinstance(target, ProcessTarget):
        pids = [one.pid for one in target.all]
        folder = unified_cgroup(target.identity.pid)
        if folder is None:
            raise TargetError(f"{target.label} is in no cgroup v2 that can be seen from here")
        scope = {"kind": "process", "processes": [one.to_json() for one in target.all]}
        return _Place(_network_of(target, pids), scope, folder in {tree.mount for tree in cgroups.hierarchies()})
    raise TargetError(f"holds packets of processes, cgroups and network namespaces, not of a {target.kind}")


def _network_of(target: Target, pids: list[int]) -> NetworkNamespace:
    networks = {network: pid for pid in pids if (network := namespaces.network_of(pid)) is not None}
    if len(networks) != 1:
        where = "several network namespaces" if networks else "no network namespace: it has no process"
        raise TargetError(f"{target.label} is in {where}")
    return NetworkNamespace.at(f"/proc/{next(iter(networks.values()))}/ns/net")


def _interfaces(namespace: NetworkNamespace) -> tuple[list[str], list[str]]:
    """The interfaces that are up: those that keep departure times, and those that do not."""
    fd = namespace.open()

    def look() -> tuple[list[str], list[str]]:
        with Netlink() as netlink:
            up = [link for link in netlink.links() if link.up]
            knowing = {link.name for link in up if knows_departure_times(netlink, link.index)}
        return sorted(knowing), [link.name for link in up if link.name not in knowing]

    try:
        return namespaces.inside(fd, look)
    finally:
        os.close(fd)


def _out_of_reach(namespace: NetworkNamespace) -> tuple[str, ...]:
    fd = namespace.open()

    def look() -> tuple[str, ...]:
        with Netlink() as netlink:
            links = netlink.links()
        return tuple(
            f"packets on {link.name}: it has no Ethernet headers" for link in links if link.up and not reachable(link)
        )

    try:
        return namespaces.inside(fd, look)
    finally:
        os.close(fd)


@cache
def _programs_attach() -> Capability:
    """Whether the program is taken by the verifier, and can be held on an interface by a descriptor."""
    answer = loads("tcp_policy")
    if not answer.works:
        return Capability(answer.works, answer.reason)

    def attach() -> None:
        with Collection.load("tcp_policy") as collection:
            for fd in TcxHook("hold", 1, "egress").attach(collection):
                os.close(fd)

    try:
        tried(attach)
    except (OSError, SquallError) as error:
        return Capability(False, f"programs cannot be held on an interface by a descriptor (Linux 6.6): {error}")
    return Capability(True)


@cache
def line_works() -> Capability:
    """Whether a delay line can be had: its programs, and a TAP device, really made."""
    answer = loads("line")
    if not answer.works:
        return Capability(answer.works, answer.reason)
    try:
        tried(lambda: Tap(1500).close())
    except OSError as error:
        return Capability(False, f"a TAP device cannot be made: {error}")
    return Capability(True)


@cache
def _has_fq() -> Capability:
    """Whether this kernel has fq: one is really put on an interface of a namespace that is made for it."""

    def put() -> None:
        with Netlink() as netlink:
            netlink.add_qdisc(1, "fq")

    try:
        tried(put)
    except OSError as error:
        return Capability(False, f"this kernel has no fq: {error}")
    return Capability(True)
