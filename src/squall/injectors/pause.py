"""process.pause by SIGSTOP and SIGCONT."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from squall.actions import Action, Pause, PauseCycle
from squall.faults.process import Pause as PauseFault
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.targets import ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["PauseInjector"]


class PauseInjector:
    """Stops whole processes; for a duty cycle a worker does it, which lets go when its owner ends."""

    mechanism: ClassVar[str] = "sigstop"
    faults: ClassVar[tuple[str, ...]] = ("process.pause",)
    summary: ClassVar[str] = "SIGSTOP through a pidfd, undone by SIGCONT; a duty cycle to about 1 ms"
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        return Capability(host.pidfd, "" if host.pidfd else "this kernel has no pidfds (Linux 5.3)")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, PauseFault) or not isinstance(target, ProcessTarget):
            return Refusal(self.mechanism, f"stops processes, not a {target.kind}")
        hit = target.with_descendants() if fault.descendants else target
        if (reason := not_permitted(hit)) is not None:
            return Refusal(self.mechanism, reason)
        actions: tuple[Action, ...]
        if fault.stopped is None or fault.every is None:
            actions = tuple(Pause(identity, target.command) for identity in hit.all)
            accuracy = "stops within about 1 ms"
        else:
            actions = tuple(
                PauseCycle(
                    f"{site.run}/{site.fault}.{identity.pid}", identity, target.command, fault.stopped, fault.every
                )
                for identity in hit.all
            )
            accuracy = "each stop and go within about 1 ms of its time, without drift"
        return Plan(
            self.mechanism, actions, accuracy, accuracy_ns=1_000_000,
            not_covered=("clocks go on while it stands still", "a parent that waits for stopped children (a shell) sees the stop"),
        )  # fmt: skip
