"""io.error by programs in front of the kernel's security checks."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import KernelWorker
from squall.faults.io import Error
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.kernel.bpf import loads
from squall.targets import CgroupTarget, ProcessTarget
from squall.workers import io as worker

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["SecurityHookInjector", "share_of"]

_SHARE_ALWAYS = 0xFFFFFFFF
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""


def share_of(percent: float) -> int:
    """A share as the programs draw it: of 2^32, the most standing for all."""
    return _SHARE_ALWAYS if percent >= 1 else round(percent * (1 << 32))


@dataclass(frozen=True, slots=True)
class _Whom:
    number: int
    key: str
    label: str
    config: dict[str, Any]


class SecurityHookInjector:
    """Programs that answer instead of the security modules: for processes or a whole cgroup, nothing in the target changed."""

    mechanism: ClassVar[str] = "security-hook"
    faults: ClassVar[tuple[str, ...]] = ("io.error",)
    summary: ClassVar[str] = (
        "bpf programs on security_file_open, _file_permission and _inode_getattr; ends with its worker"
    )
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        if not host.root:
            return Capability(works=False, reason="loading programs into the kernel needs root")
        answer = loads("io", ("process_opens", "process_uses", "process_looks"))
        return Capability(answer.works, answer.reason)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, Error):
            return Refusal(
                self.mechanism, "makes calls fail, it cannot delay them: a program in the kernel may not sleep"
            )
        reason = _refusal(fault)
        if reason is not None:
            return Refusal(self.mechanism, reason)
        whom = _whom(fault, target)
        if isinstance(whom, str):
            return Refusal(self.mechanism, whom)
        answer = loads("io", worker.programs(worker.CALLS, by_cgroup=whom.config["cgroup"] is not None))
        if not answer.works:
            return Refusal(self.mechanism, f"this kernel does not take the programs: {answer.reason}")
        where = f" in {', '.join(fault.paths)}" if fault.paths else ""
        action = KernelWorker(
            token=f"{site.run}/{site.fault}.{whom.number}",
            module="squall.workers.io",
            purpose=f"fail {fault.percent} of {', '.join(fault.calls)}{where} of {whom.label} with {fault.errno}",
            config={
                "calls": list(fault.calls), "error": getattr(errno, fault.errno), "share": share_of(float(fault.percent)),
                "times": fault.times or 0, "paths": list(fault.paths), "seed": site.seed, **whom.config,
            },
            holds=(f"{whom.key}:files",),
        )  # fmt: skip
        return Plan(
            self.mechanism, (action,), "exactly the calls that fit; the share is drawn for each of them", cost=1,
            not_covered=_not_covered(fault),
        )  # fmt: skip


def _refusal(fault: Error) -> str | None:
    """What of the fault it cannot honour."""
    unknown = [call for call in fault.calls if call not in worker.CALLS]
    if unknown:
        return f"the kernel asks no security module about {', '.join(unknown)} in a way that knows the file"
    if any("*" in path for path in fault.paths):
        return "it compares files and folders, not patterns with `*`"
    if len(fault.paths) > worker.PATHS_MOST or any(len(os.fsencode(path)) > worker.PATH_MOST for path in fault.paths):
        return f"it compares {worker.PATHS_MOST} paths of {worker.PATH_MOST} bytes at most"
    return None


def _whom(fault: Error, target: Target) -> _Whom | str:
    if isinstance(target, CgroupTarget):
        if target.unified is None:
            return f"{target.label} is a cgroup of v1: programs know those of v2"
        return _Whom(
            target.identities[0][1],
            target.key,
            target.label,
            {"cgroup": target.unified, "processes": [], "descendants": False},
        )
    if not isinstance(target, ProcessTarget):
        return f"works on processes and cgroups, not on a {target.kind}"
    if Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE:
        return "Squall is in a pid namespace of its own: programs know processes by their pids outside of it"
    hit = target.with_descendants() if fault.descendants else target
    if (reason := not_permitted(hit)) is not None:
        return reason
    processes = [[one.pid, one.start_ticks] for one in hit.all]
    return _Whom(
        target.identity.pid,
        target.key,
        target.label,
        {"cgroup": None, "processes": processes, "descendants": fault.descendants},
    )


def _not_covered(fault: Error) -> tuple[str, ...]:
    what = ["memory-mapped files"]
    if "open" in fault.calls:
        what.append("an open that creates a file has created it, empty, before it fails")
    if "read" in fault.calls:
        what.append(
            "the kernel's own reading for the process is hit as well: a program that it executes cannot be read"
        )
    if "stat" in fault.calls and fault.percent < 1:
        what.append("on overlayfs the kernel asks twice about a look at a file, so it is drawn for twice")
    if fault.descendants:
        what.append("processes that are forked later are hit from 0.2 s after their start on")
    return tuple(what)
