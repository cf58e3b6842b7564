"""dns.* by a stand-in resolver of Squall's own, to which the queries of a cgroup or a network namespace are led."""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import KernelWorker, OwnCgroup
from squall.actions.nft_table import NftTable, nft, table_name
from squall.actions.own_cgroup import OWN_PREFIX, unified_cgroup
from squall.errors import SquallError
from squall.faults.dns import DnsFault, Error, Fixed, Random
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.kernel import namespaces
from squall.kernel.bpf import loads
from squall.kernel.conntrack import Conntrack, End, Flow
from squall.kernel.namespaces import NetworkNamespace
from squall.targets import CgroupTarget, NetnsTarget, ProcessTarget
from squall.workers.dns.redirected import rules

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["DnsInjector", "DnsRedirectInjector"]

_MODULE = "squall.workers.dns.worker"
_LINGER_S = 2.0
_ACCURACY, _ACCURACY_NS = "each query by itself; one that is passed on takes about a millisecond longer", 1_000_000
_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to sockets by itself."""
_MARK = 0x5371_0000
_NOT_COVERED = (
    "names that a cache or a daemon outside the target looks up for it (nscd, systemd-resolved by its socket)",
    "DNS over TLS or HTTPS: only port 53 is led",
    "sockets that were connected before, are bound to a device, or ask a link-local IPv6 name server",
)


class DnsInjector:
    """Programs on the cgroup lead what goes to port 53 to the resolver, which passes on what it does not answer."""

    mechanism: ClassVar[str] = "resolver"
    faults: ClassVar[tuple[str, ...]] = ("dns.error", "dns.random", "dns.fixed")
    summary: ClassVar[str] = "queries of the target's cgroup are led to a stand-in resolver, which passes on all others"
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        if not host.root:
            return Capability(works=False, reason="programs in the kernel need root")
        answer = loads("dns")
        if answer.works and not NetworkNamespace.at("/proc/self/ns/net").cookie:
            return Capability(works=False, reason="the kernel gives network namespaces no cookies (Linux 5.14 does)")
        return Capability(answer.works, answer.reason)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, DnsFault):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        if isinstance(target, CgroupTarget):
            return self._of_cgroup(fault, target, site)
        if isinstance(target, ProcessTarget):
            return self._of_process(fault, target, site)
        return Refusal(self.mechanism, f"works on cgroups and processes, not on a {target.kind}")

    def _of_cgroup(self, fault: DnsFault, target: CgroupTarget, site: Site) -> Plan | Refusal:
        folder = target.unified
        if folder is None:
            return Refusal(self.mechanism, f"{target.label} is a cgroup of v1: programs are attached to those of v2")
        worker = _worker(fault, target, site, {"folder": folder}, f"{target.identities[0][1]}")
        return self._plan((worker,))

    def _of_process(self, fault: DnsFault, target: ProcessTarget, site: Site) -> Plan | Refusal:
        if unified_cgroup(target.identity.pid) is None:
            return Refusal(self.mechanism, f"{target.label} is in no cgroup v2 that can be seen from here")
        pid = target.identity.pid
        name = f"{site.run}-{site.fault}.{pid}"
        own = OwnCgroup(target.identity, target.label, name)
        worker = _worker(fault, target, site, {"pid": pid, "own": f"{OWN_PREFIX}{name}"}, f"{pid}")
        return self._plan((own, worker), "sockets that it opened before it was moved, and children that it has already")

    def _plan(self, actions: tuple[KernelWorker | OwnCgroup, ...], *more: str) -> Plan:
        return Plan(self.mechanism, actions, _ACCURACY, accuracy_ns=_ACCURACY_NS, not_covered=(*_NOT_COVERED, *more))


class DnsRedirectInjector:
    """Rules in the network namespace redirect what goes to port 53, of whoever is in it, to the resolver."""

    mechanism: ClassVar[str] = "resolver-nft"
    faults: ClassVar[tuple[str, ...]] = DnsInjector.faults
    summary: ClassVar[str] = "queries of a network namespace are redirected (nftables) to a stand-in resolver in it"
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        if not host.root:
            return Capability(works=False, reason="rules of nftables need root")
        return _redirects()

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, DnsFault) or not isinstance(target, NetnsTarget):
            return Refusal(self.mechanism, "redirects all queries of a network namespace: name one, or else a cgroup")
        port, mark = _PORTS[site.seed % len(_PORTS)], _MARK | site.seed % (1 << 16)
        token, netns = f"{site.run}/{site.fault}.nft", target.namespace.to_json()
        name = table_name(token)
        place = {"netns": netns, "port": port, "mark": mark, "table": name}
        table = NftTable(netns, name, rules(port, mark), port, "what goes to port 53 goes to the stand-in resolver")
        worker = _worker(fault, target, site, place, f"{target.namespace.inode}")
        covered = (
            *_NOT_COVERED[:2],
            "sockets that have asked in the last half minute, where the kernel tracks flows already",
            "what passes through the network namespace: only what begins in it is redirected",
        )
        return Plan(self.mechanism, (worker, table), _ACCURACY, accuracy_ns=_ACCURACY_NS, cost=1, not_covered=covered)


@cache
def _redirects() -> Capability:
    """Tried in a network namespace of its own."""

    def trial() -> Capability:
        done = nft(f"table inet squall-trial {{\n{rules(1, 1)}\n}}\n")
        if done.returncode:
            return Capability(works=False, reason=f"nft: {' '.join(done.stderr.split())[:200]}")
        here = End("127.0.0.1", 1)
        with Conntrack() as tracked:
            tracked.original(Flow(socket.AF_INET, 17, here, here))
        return Capability(works=True)

    try:
        return namespaces.in_a_new_one(trial)
    except (OSError, SquallError) as error:
        return Capability(works=False, reason=f"where a flow was going cannot be asked: {error}")


def _worker(fault: DnsFault, target: Target, site: Site, where: dict[str, Any], number: str) -> KernelWorker:
    rule = _rule(fault)
    return KernelWorker(
        token=f"{site.run}/{site.fault}.{number}",
        module=_MODULE,
        purpose=f"answer {rule['kind']} to {fault.percent} of queries for {', '.join(fault.names)} of {target.label}",
        config={**where, "rule": rule, "seed": site.seed},
        holds=(f"dns:{target.key}",),
        linger_s=_LINGER_S,
    )


def _rule(fault: DnsFault) -> dict[str, Any]:
    rule: dict[str, Any] = {"kind": "random", "names": list(fault.names), "share": float(fault.percent)}
    if isinstance(fault, Error):
        rule["kind"] = fault.error
    if isinstance(fault, Random | Fixed):
        rule["ttl_s"] = int(fault.ttl.seconds)
    if isinstance(fault, Fixed):
        rule |= {"kind": "fixed", "addresses": list(fault.addresses)}
    return rule
