"""process.panic and http.degrade in Python services, by a hook in the function that the interpreter itself puts there."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import PythonHook
from squall.errors import CannotInject
from squall.faults.http import Degrade
from squall.faults.process import Panic
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.injectors.uprobe import share_of
from squall.kernel import go_process, process_memory, python_process
from squall.targets import ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.faults.handlers import InHandler
    from squall.targets import Target

__all__ = ["PythonHookInjector"]

_ACCURACY_NS = 1_000_000
_DEFAULT = "RuntimeError: raised by Squall"


class PythonHookInjector:
    """Has the interpreter change the function's code between two instructions, as a signal's handler could."""

    mechanism: ClassVar[str] = "python hook"
    faults: ClassVar[tuple[str, ...]] = ("process.panic", "http.degrade")
    summary: ClassVar[str] = (
        "a Python function's code exchanged by the interpreter itself (Py_AddPendingCall); ends with its lease"
    )
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        known = platform.machine() == "x86_64"
        return Capability(known, "" if known else "a thread can be made to call a function on x86-64 only")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, Panic | Degrade):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        if (reason := _unfit(fault, target)) is not None:
            return Refusal(self.mechanism, reason)
        assert isinstance(target, ProcessTarget) and fault.function is not None  # noqa: S101, PT018 - both were looked at
        what = f"{fault.delay} late" if isinstance(fault, Degrade) else "fails"
        token = f"{site.run}/{site.fault}.{target.identity.pid}"
        hook = PythonHook(
            token=token,
            module="squall.workers.python_hook",
            purpose=f"{fault.function} of {target.label} is made to be {what}".replace("be fails", "fail"),
            config=_config(fault, target, token, site),
            holds=(f"{target.key}:entry:{fault.function}",),
        )
        return Plan(
            self.mechanism,
            (hook,),
            accuracy="exactly the calls that are drawn; a delay is some 0.1 ms longer; about 5 us for every other call",
            accuracy_ns=_ACCURACY_NS,
            not_covered=(
                "processes that the service forks are not hit",
                "it begins, and its code is put back, when the main thread next runs Python",
                "calls that were under way when it began; who asks for the function's signature sees *args, **kwargs",
            ),
        )


def _unfit(fault: InHandler, target: Target) -> str | None:
    if not isinstance(target, ProcessTarget):
        return f"works in processes, not on a {target.kind}"
    if fault.language == "go":
        return "works in Python programs, and the fault is for Go"
    if (reason := not_permitted(target)) is None:
        try:
            reason = _no_interpreter(target)
        except (CannotInject, OSError) as error:
            reason = str(error)
    if reason is None and (fault.function is None or ":" not in fault.function):
        return 'name the function of the handler, as "module:qualified.name" (a script\'s module is __main__)'
    return reason


def _no_interpreter(target: ProcessTarget) -> str | None:
    """Why the interpreter of a process cannot be asked; CannotInject and OSError say it too."""
    pid = target.identity.pid
    if go_process.is_go(pid):
        return f"{target.label} is a Go program"
    if reason := process_memory.memory_refusal(pid):
        return reason
    if debugger := process_memory.tracer(pid):
        return f"a debugger holds it (pid {debugger})"
    python_process.interpreter(pid)
    if python_process.time_namespace(pid) != python_process.time_namespace(os.getpid()):
        return "it is in a time namespace of its own, whose monotonic clock is not Squall's"
    return None


def _config(fault: Panic | Degrade, target: ProcessTarget, token: str, site: Site) -> dict[str, Any]:
    return {
        "pid": target.identity.pid, "start_ticks": target.identity.start_ticks, "name": target.command, "token": token,
        "function": fault.function, "exception": (fault.exception or _DEFAULT) if isinstance(fault, Panic) else "",
        "delay_ns": 0 if isinstance(fault, Panic) else int(fault.delay),
        "share": share_of(fault), "most": (fault.count or 0) if isinstance(fault, Panic) else 0,
        "seed": site.seed,
    }  # fmt: skip
