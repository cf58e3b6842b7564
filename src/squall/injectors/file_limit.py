"""stress.fd by lowering the process's own file limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from squall.actions import FileLimit
from squall.faults.stress import FileDescriptors
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.targets import ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["FileLimitInjector"]


class FileLimitInjector:
    """Sets RLIMIT_NOFILE from outside: nothing runs inside the process, and nothing that is open is closed."""

    mechanism: ClassVar[str] = "prlimit"
    faults: ClassVar[tuple[str, ...]] = ("stress.fd",)
    summary: ClassVar[str] = "prlimit lowers the soft RLIMIT_NOFILE; undone by compare-and-swap"
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        return Capability(host.pidfd, "" if host.pidfd else "this kernel has no pidfds (Linux 5.3)")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: ARG002, D102
        if not isinstance(fault, FileDescriptors) or not isinstance(target, ProcessTarget):
            return Refusal(self.mechanism, f"limits processes, not a {target.kind}")
        if (reason := not_permitted(target)) is not None:
            return Refusal(self.mechanism, reason)
        return Plan(
            self.mechanism,
            (FileLimit(target.identity, target.command, fault.leave),),
            accuracy=f"exactly {fault.leave} more can be opened, counted from what is open when it begins",
            not_covered=("children that outlive the process keep the low limit that they inherited",),
        )
