"""time.skew by a stub in the target's vDSO, and a worker that holds the lease of the skew."""

from __future__ import annotations

import platform
import subprocess
import time
from errno import EIO
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from squall.actions import ClockSkew, KernelWorker
from squall.errors import CannotInject, TargetError
from squall.faults.time import Skew
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.kernel import clock_stub, process_memory, vdso
from squall.targets import ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["ClockInjector"]

NOT_COVERED = (
    "clock reads by direct system calls instead of the C library's or the runtime's functions",
    "the kernel's own use of time: timers and waits until a wall-clock time (timerfd, pthread_cond_timedwait), file times",
    "programs that the process starts by exec: their clocks are true",
    "a time namespace is not used: it can be had at a process's start only, and has no wall clock",
)


_EXEC_S = 0.5


class ClockInjector:
    """Writes code into the padding of the process's vDSO and leads its clock functions there; nothing is restarted."""

    mechanism: ClassVar[str] = "vdso"
    faults: ClassVar[tuple[str, ...]] = ("time.skew",)
    summary: ClassVar[str] = (
        "a stub in the process's own copy of the vDSO; exact at each read; the skew is a lease of 1 s, renewed by a worker"
    )
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        if not host.pidfd:
            return Capability(False, "this kernel has no pidfds (Linux 5.3)")
        return _tried()

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, Skew) or not isinstance(target, ProcessTarget):
            return Refusal(self.mechanism, f"skews the clocks of processes, not of a {target.kind}")
        hit = target.with_descendants() if fault.descendants else target
        patches: list[ClockSkew] = []
        for one in hit.all:
            patch = ClockSkew(f"{site.run}/{site.fault}.{one.pid}", one, target.command)
            try:
                patches.append(patch.prepare())
            except TargetError as error:
                return Refusal(self.mechanism, str(error))
        worker = KernelWorker(
            f"{site.run}/{site.fault}", "squall.workers.clock", _purpose(fault, hit.label), {
                "stubs": [[one.process.pid, one.process.start_ticks, one.token, one.stub] for one in patches],
                "name": target.command, "offset_ns": int(fault.offset), "drift_ppm": float(fault.drift),
                "clocks": [clock_stub.CLOCKS[name] for name in fault.clocks], "forks": fault.descendants,
            },
        )  # fmt: skip
        return Plan(
            self.mechanism, (*patches, worker),
            "exact to the ns at each read of the clock; it begins and changes for all threads at once",
            accuracy_ns=1, not_covered=NOT_COVERED,
        )  # fmt: skip


def _purpose(fault: Skew, label: str) -> str:
    what = [f"by {fault.offset}"] if fault.offset else []
    what += [f"drifting by {fault.drift}"] if fault.drift else []
    return f"skew the wall clock of {label} {' and '.join(what)}"


def _soon_located(pid: int) -> tuple[int, int]:
    """Where the vDSO of a process that was just started is: it gets one at the end of its exec."""
    deadline = time.monotonic() + _EXEC_S
    while True:
        try:
            return vdso.located(pid)
        except CannotInject:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


@cache
def _tried() -> Capability:
    """Put a stub into the vDSO of a process of our own, unused, and end it: some kernels forbid writing there."""
    if platform.machine() != "x86_64":
        return Capability(False, f"the stub is written for x86-64, and this machine is {platform.machine()}")
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        try:
            address, size = _soon_located(child.pid)
            found = clock_stub.survey(process_memory.read(child.pid, address, size))
            process_memory.write(child.pid, address + found.place, clock_stub.image(found.place))
        except CannotInject as error:
            return Capability(False, str(error).replace("its vDSO", "the vDSO"))
        except OSError as error:
            hint = "; only a debugger may here, unless the kernel is booted with proc_mem.force_override=always"
            return Capability(
                False,
                f"the code of other processes may not be written: {error.strerror}{hint if error.errno == EIO else ''}",
            )
        finally:
            child.kill()
    return Capability(True)
