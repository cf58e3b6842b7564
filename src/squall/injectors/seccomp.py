"""Errors by a seccomp filter: what could be, and why it is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from squall.injectors.base import Capability, Host, Plan, Refusal, Site

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["SeccompInjector"]

_REASON = (
    "a filter can be given to a process only by itself, when it is started, and never be taken away; "
    "Squall starts no targets"
)


class SeccompInjector:
    """Stands here so that `squall doctor` and a plan say why it was not taken."""

    mechanism: ClassVar[str] = "seccomp"
    faults: ClassVar[tuple[str, ...]] = ("io.error", "syscall.error")
    summary: ClassVar[str] = "a filter that answers calls with an errno, for processes that Squall would start itself"
    recoverability: ClassVar[Recoverability] = "irreversible"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return Capability(works=False, reason=_REASON)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: ARG002, D102
        return Refusal(self.mechanism, _REASON)
