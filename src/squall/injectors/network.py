"""network.* in the kernel: the packets of a target are chosen by a program on the interfaces that they pass.

What is chosen how is the same for every mechanism (`chosen`); this file's own, "tc", drops, breaks and doubles them where
they stand. Delay, order and rate need somebody who holds packets: see `line` and `netem`.
"""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import Action, KernelWorker, OwnCgroup, TcFilter
from squall.actions.own_cgroup import OWN_PREFIX, unified_cgroup
from squall.errors import CannotInject, SquallError
from squall.faults.network import Corrupt, Duplicate, Loss, NetworkFault, Partition, port_range
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.kernel import cgroups, namespaces
from squall.kernel.bpf import BpfError, Collection, TcxHook, loads
from squall.kernel.fresh_netns import tried
from squall.kernel.namespaces import NetworkNamespace
from squall.kernel.netlink import CLSACT_EGRESS, Netlink
from squall.targets import CgroupTarget, NetnsTarget, ProcessTarget
from squall.workers.network.interfaces import FILTER_PREFIX
from squall.workers.network.match import ALWAYS, Match, Strike, Verdict
from squall.workers.network.names import addresses_of
from squall.workers.network.sockets import roots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["Chosen", "NetworkFilterInjector", "chosen", "filter_works", "share_of"]

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel: programs know processes by their numbers in it."""
_NAMESPACES_MOST = 16


def share_of(ratio: float) -> int:
    """A percentage as netem has it: 0 is never, 0xffffffff always."""
    return min(ALWAYS, round(ratio * ALWAYS))


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whose packets of which namespaces: what every mechanism's workers are told, one for each namespace."""

    configs: tuple[dict[str, Any], ...]
    """See squall.workers.network.filter; without `strike`, which the mechanism adds."""
    before: tuple[Action, ...]
    """What must be done before the workers begin."""
    not_covered: tuple[str, ...]
    number: int
    """One that tells the target's workers from another target's."""

    @property
    def by_descriptor(self) -> bool:
        """Whether nothing outlives the worker."""
        return not any(config["filters"] for config in self.configs)


def chosen(fault: NetworkFault, target: Target, site: Site) -> Chosen:
    """How the packets that a fault means are known; CannotInject (or OSError) with the reason where they cannot be."""
    match = _match(fault)
    resolved = {name: addresses_of(name) for name in match.names}
    unknown = [name for name, found in resolved.items() if not found]
    if unknown:
        raise CannotInject(f"the host name {unknown[0]} does not resolve")
    scope = {"kind": "netns"} if isinstance(target, NetnsTarget) else _scope(fault, target)
    networks = _namespaces(target)
    if not networks:
        raise CannotInject(f"{target.label} has no process, so that nobody knows its network")
    if len(networks) > _NAMESPACES_MOST:
        raise CannotInject(
            f"{target.label} is in {len(networks)} network namespaces: at most {_NAMESPACES_MOST} are covered"
        )
    filters = f"{FILTER_PREFIX}{site.run}/{site.fault}" if attaching().by == "clsact" else ""
    configs = tuple(
        {
            "netns": network.to_json(), "scope": scope, "match": asdict(match), "filters": filters,
            "resolved": {name: list(found) for name, found in resolved.items()}, "seed": site.seed + number,
        }
        for number, network in enumerate(networks)
    )  # fmt: skip
    guards = tuple(TcFilter(filters, target.label, network.to_json()) for network in networks) if filters else ()
    before = (*_own_cgroup(fault, target, site), *guards)
    return Chosen(configs, before, _not_covered(fault, target), _number(target, networks))


def _match(fault: NetworkFault) -> Match:
    def ranges(ports: tuple[int | str, ...]) -> tuple[tuple[int, int], ...]:
        return tuple(port_range(one) for one in ports)

    match = Match(
        fault.direction,
        fault.protocol,
        ranges(fault.ports),
        ranges(fault.local_ports),
        ranges(fault.remote_ports),
        fault.peers,
    )
    if isinstance(fault, Partition):
        return replace(match, zone_a=fault.zone_a, zone_b=fault.zone_b, across=fault.across)
    return match


def _scope(fault: NetworkFault, target: Target) -> dict[str, Any]:
    """Whose sockets are meant."""
    if fault.protocol == "icmp" and fault.direction != "egress":
        raise CannotInject(
            f"icmp that comes in belongs to no socket, and so not to {target.label}: name a network namespace"
        )
    if isinstance(target, CgroupTarget):
        return {"kind": "cgroup", "cgroup": _unified_folder(target)}
    if not isinstance(target, ProcessTarget):
        raise CannotInject(f"hits packets of processes, cgroups and network namespaces, not of a {target.kind}")
    if Path("/proc/self/ns/pid").readlink().name != _INITIAL_PID_NAMESPACE:
        raise CannotInject(
            "Squall runs in a container, where the kernel has other numbers for processes: name a cgroup or a network namespace"
        )
    if unified_cgroup(target.identity.pid) is None:
        raise CannotInject(f"{target.label} is in no cgroup v2, where its new sockets could be noted")
    return {"kind": "process", "processes": [target.identity.to_json()], "descendants": fault.descendants}


def _unified_folder(target: CgroupTarget) -> str:
    mounts = [tree.mount for tree in cgroups.hierarchies() if tree.v2]
    unified = [one for one in target.folders if any(one.startswith(mount.rstrip("/") + "/") for mount in mounts)]
    if not unified:
        raise CannotInject(f"{target.label} is in cgroup v1 alone: packets are known by cgroup v2")
    if os.path.realpath(unified[0]) in roots():
        raise CannotInject(f"{target.label} is a root cgroup: nothing is ever attached there")
    return unified[0]


def _number(target: Target, networks: list[NetworkNamespace]) -> int:
    if isinstance(target, ProcessTarget):
        return target.identity.pid
    return target.identities[0][1] if isinstance(target, CgroupTarget) else networks[0].inode


def _own_cgroup(fault: NetworkFault, target: Target, site: Site) -> tuple[Action, ...]:
    """A process in the root cgroup gets one of its own: nothing is attached to the root, and its new sockets must be noted."""
    if not isinstance(target, ProcessTarget):
        return ()
    folder = unified_cgroup(target.identity.pid) or ""
    if os.path.realpath(folder) not in roots() and OWN_PREFIX not in folder:
        return ()
    name = f"{site.run}-{site.fault}.{target.identity.pid}"
    return (OwnCgroup(target.identity, target.label, name, descendants=fault.descendants),)


def _namespaces(target: Target) -> list[NetworkNamespace]:
    """Where the target's packets pass, each namespace once."""
    if isinstance(target, NetnsTarget):
        return [target.namespace]
    pids = [target.identity.pid] if isinstance(target, ProcessTarget) else []
    if isinstance(target, CgroupTarget):
        pids = target.processes()
    by_identity = {network: pid for pid in reversed(pids) if (network := namespaces.network_of(pid)) is not None}
    return [NetworkNamespace.at(f"/proc/{pid}/ns/net") for _, pid in sorted(by_identity.items())]


def _not_covered(fault: NetworkFault, target: Target) -> tuple[str, ...]:
    asks_ports = bool(fault.ports or fault.local_ports or fault.remote_ports)
    told = ["what a bridge of the namespace passes on between its ports"] if isinstance(target, NetnsTarget) else [
        "what the kernel sends without a socket in the target's name: resets, ICMP, ARP, the last ACKs of a closed connection",
        *(["ICMP that comes in"] if fault.protocol == "any" and fault.direction != "egress" else []),
        *(["addresses that NAT changes on the way in"] if fault.direction != "egress" else []),
    ]  # fmt: skip
    if isinstance(target, ProcessTarget):
        told.append(
            "new sockets of processes forked after the last second" if fault.descendants else "processes below it"
        )
    if asks_ports:
        told.append("later fragments of an IP packet that come before its first, which has the ports")
    return tuple(told)


@dataclass(frozen=True, slots=True)
class Attaching:
    """How programs get onto interfaces here: "tcx", "clsact", or "" with the reason why not at all."""

    by: str
    reason: str = ""
    works: bool | None = True


@cache
def attaching() -> Attaching:
    """Really try it, in a network namespace made for that. SQUALL_TC=clsact: as on a kernel without tcx."""
    answer = loads("network", ("egress", "ingress"))
    if not answer.works:
        return Attaching("", answer.reason, answer.works)
    try:
        if os.environ.get("SQUALL_TC") != "clsact":
            tried(_by_tcx)
            return Attaching("tcx")
    except BpfError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            return Attaching("", str(error), works=False)
    except OSError as error:
        return Attaching("", str(error), works=False)
    try:
        tried(_by_clsact)
    except (OSError, SquallError) as error:
        return Attaching(
            "", f"programs cannot be attached to interfaces: no tcx (Linux 6.6), and clsact says {error}", works=False
        )
    return Attaching("clsact")


def _by_tcx() -> None:
    with Collection.load("network", ("egress",)) as collection:
        for fd in TcxHook("egress", 1, "egress").attach(collection):
            os.close(fd)


def _by_clsact() -> None:
    with Collection.load("network", ("egress",)) as collection, Netlink() as netlink:
        netlink.add_clsact(1)
        netlink.add_bpf_filter(1, CLSACT_EGRESS, 1, collection.program("egress"), "squall:try")


def filter_works() -> Capability:
    """Whether the filter works on this machine for this user, for whichever mechanism needs it."""
    found = attaching()
    return Capability(found.works if found.by or found.works is None else False, found.reason)


def workers(
    chosen_: Chosen, site: Site, module: str, purpose: str, more: Sequence[dict[str, Any]]
) -> tuple[KernelWorker, ...]:
    """One worker for each namespace; `more` is what each is told beside the filter's own."""
    return tuple(
        KernelWorker(f"{site.run}/{site.fault}.{chosen_.number}-{index}", module, purpose, {**config, **own})
        for index, (config, own) in enumerate(zip(chosen_.configs, more, strict=True))
    )


class NetworkFilterInjector:
    """A program on the interfaces draws for each packet that is meant, and drops, breaks or doubles it."""

    mechanism: ClassVar[str] = "tc"
    faults: ClassVar[tuple[str, ...]] = ("network.loss", "network.duplicate", "network.corrupt", "network.partition")
    summary: ClassVar[str] = "a program on the interfaces, which draws for each packet; exact, others pass it in 0.1 us"
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return filter_works()

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, NetworkFault):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        strike = _strike(fault)
        if strike is None:
            return Refusal(self.mechanism, f"cannot hold packets, as {fault.type} must")
        try:
            found = chosen(fault, target, site)
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))
        if found.configs[0]["scope"]["kind"] != "netns":
            answer = loads("network", ("egress", "ingress", "note"))
            if not answer.works:
                return Refusal(self.mechanism, f"new sockets cannot be noted: {answer.reason}")
        extra = [{"strike": asdict(strike)}] * len(found.configs)
        return Plan(
            self.mechanism,
            (*found.before, *workers(found, site, "squall.workers.network.strike", _purpose(fault, target), extra)),
            accuracy="every packet by itself, drawn as netem draws",
            cost=1,
            not_covered=(*found.not_covered, *_segments(strike.verdict)),
        )


def _strike(fault: NetworkFault) -> Strike | None:
    if isinstance(fault, Partition):
        return Strike("drop")
    verdicts: dict[type[NetworkFault], Verdict] = {Loss: "drop", Duplicate: "duplicate", Corrupt: "corrupt"}
    if not isinstance(fault, Loss | Duplicate | Corrupt):
        return None
    return Strike(verdicts[type(fault)], share_of(fault.percent), share_of(fault.correlation))


def _segments(verdict: Verdict) -> tuple[str, ...]:
    if verdict == "corrupt":
        return ("what the network card is still to cut into segments is dropped, not corrupted",)
    return ("what the network card cuts into segments, or has put together, counts as one packet",)


def _purpose(fault: NetworkFault, target: Target) -> str:
    if isinstance(fault, Partition):
        who = (
            "between the zones"
            if fault.zone_a
            else f"to {', '.join(fault.peers[:3])}"
            if fault.peers
            else "to everyone"
        )
        return f"cut {target.label} off, {who}"
    assert isinstance(fault, Loss | Duplicate | Corrupt)  # noqa: S101 - `_strike` has said so
    word = {"network.loss": "lose", "network.duplicate": "double", "network.corrupt": "corrupt"}[fault.type]
    return f"{word} {fault.percent} of the packets ({fault.direction}) of {target.label}"
