"""http.degrade and process.panic in Go services by programs on uprobes: bound to one process, held by a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import KernelWorker
from squall.faults.handlers import HTTP_ENTRY, InHandler
from squall.faults.http import Degrade
from squall.faults.process import Panic
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.kernel import go_process
from squall.kernel.bpf import loads
from squall.kernel.elf import ImageError
from squall.targets import ProcessTarget
from squall.workers.degrade import BOUNDED, LOOPED, SHARE_ALWAYS

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["UprobeDegradeInjector", "UprobePanicInjector", "go_function", "nil_receiver_refusal", "share_of"]

_BUSY_NS_MOST = 5_000_000
_BOUNDED_NS_MOST = 1_000_000
_ACCURACY_NS = 100_000
_CHILDREN = "processes that the service forks are not hit"


def go_function(fault: InHandler, target: Target) -> go_process.GoFunction | str:
    """The function of a running Go program that a fault means, or why there is none."""
    if not isinstance(target, ProcessTarget):
        return f"works in processes, not on a {target.kind}"
    if fault.language == "python" or (fault.function is not None and ":" in fault.function):
        return "works in Go programs, and the fault is for Python"
    if (reason := not_permitted(target)) is not None:
        return reason
    try:
        return go_process.find_function(target.identity.pid, fault.function or HTTP_ENTRY)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"the program of {target.label} cannot be read: {error.strerror}"


def share_of(fault: InHandler) -> int:
    """The share of calls as programs in the kernel and stubs draw it: of 2^32."""
    return round(float(fault.percent) * SHARE_ALWAYS)


def entry_of(target: ProcessTarget, function: go_process.GoFunction) -> str:
    """The entry of a function as an object that two faults may not both hold."""
    return f"{target.key}:entry:{function.name}"


def nil_receiver_refusal(function: go_process.GoFunction) -> str | None:
    """Why a function must not get a nil receiver: it is not known to take a pointer, or not to take it in a register."""
    if not function.in_registers:
        return f"it was built with Go {'.'.join(map(str, function.release))}: only from 1.17 on it is known where receivers are"
    if "(*" not in function.name and function.name not in (HTTP_ENTRY, "net/http.HandlerFunc.ServeHTTP"):
        return (
            f"{function.name} is no method of a pointer: its first argument may be a value, which would be changed "
            'silently. Name one as "main.(*shop).order"'
        )
    return None


class UprobeDegradeInjector:
    """A program at the function's entry waits in the kernel; the kernel's clock says how long everything took."""

    mechanism: ClassVar[str] = "uprobe"
    faults: ClassVar[tuple[str, ...]] = ("http.degrade",)
    summary: ClassVar[str] = "a busy wait at a Go function's entry, by a uprobe bound to the process; up to 5 ms"
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        looped = loads("degrade", (LOOPED, "leave"))
        if looped.works:
            return Capability(works=True)
        bounded = loads("degrade", (BOUNDED, "leave"))
        if bounded.works:
            return Capability(works=True, reason="up to 1 ms only: this kernel has no bpf_loop (Linux 5.17)")
        return Capability(bounded.works, bounded.reason)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, Degrade):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        function = go_function(fault, target)
        if isinstance(function, str):
            return Refusal(self.mechanism, function)
        assert isinstance(target, ProcessTarget)  # noqa: S101 - go_function looked
        looped = bool(loads("degrade", (LOOPED, "leave")).works)
        most = _BUSY_NS_MOST if looped else _BOUNDED_NS_MOST
        if int(fault.delay) > most:
            return Refusal(
                self.mechanism,
                f"waits at most {most // 1_000_000} ms here, because it burns a CPU for as long: "
                "let a route or a network delay (tcp.latency, http.delay, network.delay) wait longer",
            )
        worker = KernelWorker(
            token=f"{site.run}/{site.fault}.{target.identity.pid}",
            module="squall.workers.degrade",
            purpose=f"{fault.delay} at the entry of {function.name} in {target.label}, by a uprobe",
            config=_config(fault, target, function, site, LOOPED if looped else BOUNDED),
            holds=(entry_of(target, function),),
        )
        return Plan(
            self.mechanism,
            (worker,),
            accuracy="never too short; about 10 us longer, more when the CPU is taken away meanwhile",
            accuracy_ns=_ACCURACY_NS,
            not_covered=(
                "the wait burns a CPU, which the service's other requests then lack",
                *(() if function.in_registers else ("what a call takes is not measured: the Go release is not known",)),
                _CHILDREN,
            ),
        )


def _config(
    fault: Degrade, target: ProcessTarget, function: go_process.GoFunction, site: Site, program: str
) -> dict[str, Any]:
    return {
        "pid": target.identity.pid, "start_ticks": target.identity.start_ticks, "name": target.command,
        "function": function.name, "offset": function.offset, "program": program,
        "goroutines": function.in_registers, "delay_ns": int(fault.delay), "share": share_of(fault), "seed": site.seed,
    }  # fmt: skip


class UprobePanicInjector:
    """A program at the method's entry makes its receiver nil: the runtime raises the panic on the goroutine's stack."""

    mechanism: ClassVar[str] = "uprobe registers"
    faults: ClassVar[tuple[str, ...]] = ("process.panic",)
    summary: ClassVar[str] = "a Go method's receiver made nil in its register, by a uprobe bound to the process"
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102
        answer = loads("panic", ("nil_receiver",))
        if answer.works is False:
            return Capability(works=False, reason=f"this kernel lets no uprobe write registers ({answer.reason[:160]})")
        return Capability(answer.works, answer.reason)

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
        worker = KernelWorker(
            token=f"{site.run}/{site.fault}.{target.identity.pid}",
            module="squall.workers.panic",
            purpose=f"panic in {function.name} of {target.label}, by a uprobe",
            config={
                "pid": target.identity.pid, "start_ticks": target.identity.start_ticks, "name": target.command,
                "function": function.name, "offset": function.offset, "share": share_of(fault),
                "most": fault.count or 0, "seed": site.seed,
            },
            holds=(entry_of(target, function),),
        )  # fmt: skip
        return Plan(
            self.mechanism,
            (worker,),
            accuracy="exactly the calls that are drawn",
            not_covered=(
                "a method that does not use its receiver, or looks whether it is nil, does not panic",
                _CHILDREN,
            ),
        )
