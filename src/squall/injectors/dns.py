"""dns.* by a stand-in resolver of Squall's own, to which the queries of a cgroup are led in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import KernelWorker, OwnCgroup
from squall.actions.own_cgroup import OWN_PREFIX, unified_cgroup
from squall.faults.dns import DnsFault, Error, Fixed, Random
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.kernel.bpf import loads
from squall.targets import CgroupTarget, NetnsTarget, ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["DnsInjector"]

_MODULE = "squall.workers.dns.worker"
_LINGER_S = 2.0
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
        return Capability(answer.works, answer.reason)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, DnsFault):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        if isinstance(target, CgroupTarget):
            return self._of_cgroup(fault, target, site)
        if isinstance(target, ProcessTarget):
            return self._of_process(fault, target, site)
        if isinstance(target, NetnsTarget):
            return Refusal(
                self.mechanism,
                "leads the queries of a cgroup, and who is in a network namespace may be in any: name the cgroup or container",
            )
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
        return Plan(
            self.mechanism,
            actions,
            accuracy="each query by itself; one that is passed on takes less than a millisecond longer",
            accuracy_ns=1_000_000,
            not_covered=(*_NOT_COVERED, *more),
        )


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
