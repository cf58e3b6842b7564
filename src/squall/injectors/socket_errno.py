"""syscall.error on socket, bind and connect of a cgroup, by programs on its hooks."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from squall.actions import KernelWorker
from squall.faults.syscall import Error
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.lsm import share_of
from squall.kernel.bpf import loads
from squall.targets import CgroupTarget
from squall.workers.socket_errno import CALLS

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["SocketErrnoInjector"]


class SocketErrnoInjector:
    """Attached to the cgroup: whoever is in it, and whoever comes, is hit; nothing in the processes is changed."""

    mechanism: ClassVar[str] = "cgroup-hook"
    faults: ClassVar[tuple[str, ...]] = ("syscall.error",)
    summary: ClassVar[str] = "bpf programs on a cgroup's socket, bind and connect hooks; end with their worker"
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        if not host.root:
            return Capability(works=False, reason="loading programs into the kernel needs root")
        answer = loads("socket_errno")
        return Capability(answer.works, answer.reason)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, Error):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        if not isinstance(target, CgroupTarget):
            return Refusal(self.mechanism, f"works on cgroups and containers, not on a {target.kind}")
        if target.unified is None:
            return Refusal(self.mechanism, f"{target.label} is a cgroup of v1: programs are attached to those of v2")
        others = [call for call in fault.calls if call not in CALLS]
        if others:
            return Refusal(self.mechanism, f"a cgroup has hooks for {', '.join(CALLS)}, not for {', '.join(others)}")
        worker = KernelWorker(
            token=f"{site.run}/{site.fault}.{target.identities[0][1]}",
            module="squall.workers.socket_errno",
            purpose=f"fail {fault.percent} of {', '.join(fault.calls)} in {target.label} with {fault.errno}",
            config={
                "cgroup": target.unified, "calls": list(fault.calls), "error": getattr(errno, fault.errno),
                "share": share_of(float(fault.percent)), "times": fault.times or 0, "seed": site.seed,
            },
            holds=(f"{target.key}:sockets",),
        )  # fmt: skip
        return Plan(
            self.mechanism, (worker,), "exactly the calls that fit; the share is drawn for each of them",
            not_covered=("sockets other than IPv4's and IPv6's (Unix domain sockets, netlink)",),
        )  # fmt: skip
