"""process.kill and process.crash by a signal to exactly one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from squall.actions import Signal
from squall.faults.process import Crash, Kill
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.targets import ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["SignalInjector"]


class SignalInjector:
    """Sends the signal through a pidfd, so that a successor with the same pid is never hit."""

    mechanism: ClassVar[str] = "signal"
    faults: ClassVar[tuple[str, ...]] = ("process.kill", "process.crash")
    summary: ClassVar[str] = "a signal through a pidfd: exact, cannot be taken back"
    recoverability: ClassVar[Recoverability] = "irreversible"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        return Capability(host.pidfd, "" if host.pidfd else "this kernel has no pidfds (Linux 5.3)")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: ARG002, D102
        if not isinstance(fault, Kill | Crash) or not isinstance(target, ProcessTarget):
            return Refusal(self.mechanism, f"hits processes, not a {target.kind}")
        hit = target.with_descendants() if fault.descendants else target
        if (reason := not_permitted(hit)) is not None:
            return Refusal(self.mechanism, reason)
        crash = (
            ("a crash by signal does not run the service's own recover or except",) if isinstance(fault, Crash) else ()
        )
        return Plan(
            self.mechanism,
            tuple(Signal(identity, target.command, fault.signal) for identity in reversed(hit.all)),
            accuracy="at once, exactly this process",
            not_covered=("starting the process again is its supervisor's task", *crash),
        )
