"""tcp.*, http.* and grpc.* of a service that knows of no proxy: the kernel leads its connections to Squall's."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from squall.actions import Action, Hijack, OwnCgroup, RouteDown, Toxic
from squall.actions.own_cgroup import OWN_PREFIX
from squall.errors import CannotInject, TargetError
from squall.faults.connections import ConnectionFault
from squall.faults.network import port_range
from squall.faults.tcp import Down
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.listening import doors, namespace_of
from squall.injectors.proxy import ProxyInjector, unread
from squall.kernel import cgroups, proc, sock_diag
from squall.kernel.bpf import loads
from squall.proxy.from_fault import accuracy_of, toxic_of
from squall.proxy.hijack import INBOUND, OUTBOUND
from squall.targets import CgroupTarget, NetnsTarget, ProcessIdentity, ProcessTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.proxy.hijack import Door
    from squall.targets import Target

__all__ = ["HijackInjector"]

Hit = ProcessTarget | CgroupTarget | NetnsTarget
_HOP = "; through the proxy each round trip costs some 0.1 ms more"
_HELD_MOST = 256
_BOTH = (
    "a refusal by the service itself: the proxy has accepted by then, so the client sees a reset instead",
    "QUIC and all else that is not TCP",
)
_OUTBOUND = (
    "connections through a named interface (SO_BINDTODEVICE), to link-local IPv6 addresses, by MPTCP or by TCP Fast Open",
    "a client that asks for its own address (getsockname) sees one of the loopback's; its peer it sees as ever",
)
_INBOUND = ("the service sees the connections come from an address of its own, not from its clients'",)


@dataclass(frozen=True, slots=True)
class _Way:
    """What a plan needs to know of one direction."""

    direction: Literal["outbound", "inbound"]
    config: dict[str, Any]
    holds: tuple[str, ...]
    what: str
    """For people: "that X makes to port 8083"."""
    before: tuple[Action, ...]
    not_covered: tuple[str, ...]


class HijackInjector:
    """A proxy of the run's own, held by the fault: it begins and ends with it, so that the baseline pays for nothing."""

    mechanism: ClassVar[str] = "hijack"
    faults: ClassVar[tuple[str, ...]] = ProxyInjector.faults
    summary: ClassVar[str] = (
        "connections led to Squall's proxy by the kernel (connect, sk_lookup); a delay's median error is about 0.3 ms; "
        "open connections are closed first, so that clients come back through it"
    )
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        if not host.proxy:
            return Capability(False, "the proxy needs Linux's epoll and splice")
        ways = [loads("hijack", OUTBOUND), loads("hijack", INBOUND)]
        if all(way.works is False for way in ways):
            return Capability(False, ways[0].reason)
        if any(way.works for way in ways):
            missing = next((f"; only in part here: {way.reason}" for way in ways if way.reason), "")
            return Capability(True, f"for a process, cgroup, container or network namespace{missing}")
        return Capability(None, ways[0].reason)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, ConnectionFault) or not isinstance(target, ProcessTarget | CgroupTarget | NetnsTarget):
            why = (
                "has no connections of its own"
                if target.kind == "middleware"
                else "has its proxy in its clients' configuration"
            )
            return Refusal(self.mechanism, f"a {target.kind} {why}")
        try:
            return _plan(self.mechanism, fault, target, site)
        except (CannotInject, TargetError) as error:
            return Refusal(self.mechanism, str(error))


def _plan(mechanism: str, fault: ConnectionFault, target: Hit, site: Site) -> Plan:
    direction = fault.connections or "inbound"
    answer = loads("hijack", OUTBOUND if direction == "outbound" else INBOUND)
    if answer.works is False:
        raise CannotInject(f"{direction} connections: {answer.reason}")
    if fault.established != "leave":
        can, reason = sock_diag.can_destroy()
        if not can:
            raise CannotInject(f"{reason}: say `established: leave`, and only new connections are hit")
    if isinstance(target, ProcessTarget) and fault.descendants:
        target = target.with_descendants()
    way = _outbound(fault, target, site) if direction == "outbound" else _inbound(fault, target)
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{site.fault}-{target.key}").strip("-")
    control = str(site.folder / f"hijack-{name}.sock")
    established = (
        None if fault.established == "leave" else {"processes": _identified(target), "folders": _folders(target)}
    )
    config = {
        "control": control, "seed": site.seed, "direction": direction, "peers": _peers(fault), "established": established,
        **way.config,
    }  # fmt: skip
    closing = "" if established is None else "; open ones are closed, so that their clients come back through it"
    hijack = Hijack(
        f"{site.run}/hijack-{name}",
        "squall.proxy.hijacked",
        f"lead the connections {way.what} to it{closing}",
        config,
        way.holds,
    )
    return Plan(
        mechanism, (*way.before, hijack, _effect(fault, target, site, control)), accuracy=accuracy_of(fault) + _HOP,
        accuracy_ns=300_000, cost=1, not_covered=(*way.not_covered, *_BOTH, *unread(fault)),
    )  # fmt: skip


def _effect(fault: ConnectionFault, target: Hit, site: Site, control: str) -> Action:
    if isinstance(fault, Down):
        return RouteDown(control, f"the connections of {target.label}")
    toxic = toxic_of(fault)
    return Toxic(control, target.label, site.fault, toxic.type, toxic.stream, toxic.toxicity, toxic.attributes)


# --- inbound


def _inbound(fault: ConnectionFault, target: Hit) -> _Way:
    pids = _pids(target)
    namespace = namespace_of(target, pids)
    found = doors(target, pids, namespace, fault.ports)
    listed = ", ".join(_at(door) for door in found if door.own)
    return _Way(
        "inbound",
        {"netns": namespace.to_json(), "doors": [[door.address, door.port, door.own] for door in found]},
        tuple(f"hijack:{namespace.key}:{_at(door)}" for door in found if door.own),
        f"that {target.label} is offered at {listed} (those of Squall's own probes and load as well)",
        (), _INBOUND,
    )  # fmt: skip


def _at(door: Door) -> str:
    return f"[{door.address}]:{door.port}" if ":" in door.address else f"{door.address}:{door.port}"


# --- outbound


def _outbound(fault: ConnectionFault, target: Hit, site: Site) -> _Way:
    if isinstance(target, NetnsTarget):
        raise CannotInject(
            "outbound connections are told apart by their cgroup, not by their network namespace: name the process, "
            "cgroup or container"
        )
    namespace = namespace_of(target, _pids(target))
    where, before = _cgroup(target) if isinstance(target, CgroupTarget) else _cgroup_of_process(target, fault, site)
    ports = [list(port_range(port)) for port in fault.ports]
    to = f" to port {', '.join(map(str, fault.ports))}" if fault.ports else ""
    moved = ("sockets that were made before the process had its own cgroup and connect only later",) if before else ()
    return _Way(
        "outbound", {"netns": namespace.to_json(), "ports": ports, **where}, _held(target),
        f"that {target.label} makes{to}", before, (*_OUTBOUND, *moved),
    )  # fmt: skip


def _cgroup(target: CgroupTarget) -> tuple[dict[str, Any], tuple[Action, ...]]:
    mounts = [tree.mount for tree in cgroups.hierarchies() if tree.v2]
    for folder in target.folders:
        if any(folder.startswith(mount.rstrip("/") + "/") for mount in mounts):
            if Path(folder, "cgroup.type").read_text().strip() == "threaded":
                raise CannotInject(f"{folder} is a threaded cgroup: its sockets count as its parent's")
            return {"cgroup": folder}, ()
    raise CannotInject(f"{target.label} is not in the v2 hierarchy, by which connections are told apart")


def _cgroup_of_process(
    target: ProcessTarget, fault: ConnectionFault, site: Site
) -> tuple[dict[str, Any], tuple[Action, ...]]:
    """The cgroup that a process has to itself already, else one that is made for it."""
    folder = cgroups.folders_of(target.identity.pid).get("")
    roots = {tree.mount for tree in cgroups.hierarchies()}
    hit = {one.pid for one in target.all}
    if folder and folder not in roots and OWN_PREFIX not in folder and set(cgroups.processes_below([folder])) <= hit:
        return {"cgroup": folder}, ()
    own = OwnCgroup(
        target.identity, target.label, f"{site.run}-{site.fault}.{target.identity.pid}", descendants=fault.descendants
    )
    own.prepare()
    return {"member": [target.identity.pid, target.identity.start_ticks, OWN_PREFIX + own.name]}, (own,)


def _held(target: ProcessTarget | CgroupTarget) -> tuple[str, ...]:
    """What no other run may lead away at the same time: the processes, and of a cgroup it and all below it."""
    if isinstance(target, ProcessTarget):
        return tuple(f"hijack:outbound:{one.key}" for one in target.all)
    groups = [f"hijack:outbound:cgroup:{folder}" for top in target.folders for folder in cgroups.below(top)]
    keys = []
    for pid in target.processes()[:_HELD_MOST]:
        stat = proc.read_stat(pid)
        if stat is not None:
            keys.append(f"hijack:outbound:{ProcessIdentity(proc.boot_id(), pid, stat.start_ticks, 0, 0).key}")
    return (*groups[:_HELD_MOST], *keys)


# --- both


def _pids(target: Hit) -> Sequence[int]:
    return [one.pid for one in target.all] if isinstance(target, ProcessTarget) else target.processes()


def _identified(target: Hit) -> list[list[int]]:
    return [[one.pid, one.start_ticks] for one in target.all] if isinstance(target, ProcessTarget) else []


def _folders(target: Hit) -> list[str]:
    return list(target.folders) if isinstance(target, CgroupTarget) else []


def _peers(fault: ConnectionFault) -> list[str]:
    """Addresses and networks; host names are looked up now, and stay what they are while the fault is on."""
    found: list[str] = []
    for peer in fault.peers:
        if "/" in peer or ":" in peer or re.fullmatch(r"[0-9.]+", peer):
            found.append(peer)
            continue
        try:
            found += sorted({str(where[0]) for *_, where in socket.getaddrinfo(peer, None, type=socket.SOCK_STREAM)})
        except OSError as error:
            raise CannotInject(f"the peer {peer} cannot be looked up: {error.strerror}") from error
    return found
