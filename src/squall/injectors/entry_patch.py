"""process.panic in Go services by a stub at the method's entry: for kernels whose probes may not write registers."""

from __future__ import annotations

import mmap
import os
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from squall.actions import KernelWorker, NilReceiver
from squall.errors import CannotInject
from squall.faults.process import Panic
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.injectors.uprobe import go_function, nil_receiver_refusal, share_of
from squall.kernel import process_memory, receiver_stub, timestamp
from squall.targets import ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["EntryPatchInjector"]


@cache
def _forbidden() -> str | None:
    """Why memory that a process may only read cannot be written for it: tried on a page of this one's own."""
    before = _read_only()
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        fresh = _read_only() - before
        try:
            for start in fresh:
                process_memory.write(os.getpid(), start, b"\x01")
        except OSError as error:
            return f"the code of processes may not be written here: {error.strerror} (the kernel's proc_mem.force_override)"
    return None


def _read_only() -> set[int]:
    """Where nameless memory of this process begins that it may only read."""
    return {one.start for one in process_memory.mappings(os.getpid()) if one.permissions == "r--p" and not one.name}


class EntryPatchInjector:
    """Leads the method through a stub that makes its receiver nil while a worker renews its lease."""

    mechanism: ClassVar[str] = "entry stub"
    faults: ClassVar[tuple[str, ...]] = ("process.panic",)
    summary: ClassVar[str] = (
        "a Go method's receiver made nil by a stub at its entry; inert within 1 s, undone by compare-and-swap"
    )
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        reason = timestamp.refusal() or _forbidden()
        return Capability(reason is None, reason or "")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, Panic):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        function = go_function(fault, target)
        if isinstance(function, str):
            return Refusal(self.mechanism, function)
        assert isinstance(target, ProcessTarget)  # noqa: S101 - go_function looked
        if fault.exception is not None:
            return Refusal(self.mechanism, "`exception` is Python's: what it raises is a nil dereference")
        if (reason := nil_receiver_refusal(function)) is not None:
            return Refusal(self.mechanism, reason)
        try:
            place = receiver_stub.place_for(target.identity.pid, function.address)
            receiver_stub.code(place, receiver_stub.first_bytes(target.identity.pid, function.address))
        except (CannotInject, OSError) as error:
            return Refusal(self.mechanism, f"{function.name} cannot be led through a stub: {error}")
        return self._plan(fault, target, function.name, function.address, site)

    def _plan(self, fault: Panic, target: ProcessTarget, name: str, entry: int, site: Site) -> Plan:
        token = f"{site.run}/{site.fault}.{target.identity.pid}"
        patch = NilReceiver(token, target.identity, target.command, name, entry)
        worker = KernelWorker(
            token=token,
            module="squall.workers.receiver",
            purpose=f"panic in {name} of {target.label}, by the stub at its entry",
            config={
                "pid": target.identity.pid, "start_ticks": target.identity.start_ticks, "name": target.command,
                "token": token, "function": name, "entry": entry, "share": share_of(fault),
                "most": fault.count or 0, "seed": site.seed,
            },
        )  # fmt: skip
        return Plan(
            self.mechanism,
            (patch, worker),
            accuracy="exactly the calls that are drawn; the process stands still for some ms at the beginning and the end",
            not_covered=(
                "a method that does not use its receiver, or looks whether it is nil, does not panic",
                "the unused stub stays in the process, behind its code, until it ends",
                "processes that the service forks are not hit",
                "probes that others (a debugger, a tracer) put on the same method while it is on: do not",
            ),
        )
