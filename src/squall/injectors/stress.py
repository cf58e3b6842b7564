"""stress.cpu, stress.memory and stress.disk by workers beside the target, in its cgroup where it has one of its own."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from squall.actions import Worker
from squall.faults.stress import Cpu, Disk, Memory
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.kernel import cgroups
from squall.kernel.memory import machine_memory
from squall.targets import CgroupTarget, ProcessTarget
from squall.workers import disk, memory
from squall.workers.lifeline import Refused, sized

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["StressInjector"]


class StressInjector:
    """Starts a small process that uses up the resource; it ends by itself when its owner does, and all is free again."""

    mechanism: ClassVar[str] = "worker"
    faults: ClassVar[tuple[str, ...]] = ("stress.cpu", "stress.memory", "stress.disk")
    summary: ClassVar[str] = "processes beside the target, in its cgroup, that end with their owner's pipe"
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        return Capability(works=True)

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(target, ProcessTarget | CgroupTarget):
            return Refusal(self.mechanism, f"works beside processes and in cgroups, not on a {target.kind}")
        folders = cgroups.own_cgroups(target.identity.pid) if isinstance(target, ProcessTarget) else target.folders
        closed = [folder for folder in folders if not os.access(Path(folder) / "cgroup.procs", os.W_OK)]
        if closed:
            return Refusal(
                self.mechanism, f"this user may put nothing into the target's cgroup {closed[0]}: run as root"
            )
        try:
            return self._plan(fault, _Place(target, folders, site))
        except Refused as refused:
            return Refusal(self.mechanism, str(refused))

    def _plan(self, fault: Fault, place: _Place) -> Plan | Refusal:
        if isinstance(fault, Cpu):
            return self._cpu(fault, place)
        if isinstance(fault, Memory):
            return self._memory(fault, place)
        if isinstance(fault, Disk):
            return self._disk(fault, place)
        return Refusal(self.mechanism, f"knows nothing of {fault.type}")

    def _cpu(self, fault: Cpu, place: _Place) -> Plan:
        what, load, workers = _cpu_share(fault, place.target)
        return Plan(
            self.mechanism,
            (place.worker("cpu", f"burn {fault.load} of {what}", {"load": load, "workers": workers}),),
            accuracy="the share of each core within 5 points, while there is that much CPU to have",
            not_covered=(
                "where others compete, or a quota ends it, less is burnt: the scheduler decides",
                *place.alone,
            ),
        )

    def _memory(self, fault: Memory, place: _Place) -> Plan:
        config = _memory_config(fault, place.target)
        memory.check(memory.Config(**config))
        growing = f", growing by {sized(fault.leak)}/s" if fault.leak is not None else ""
        return Plan(
            self.mechanism,
            (place.worker("memory", f"hold {sized(config['amount_bytes'])}{growing}", config),),
            accuracy="to the page, resident, beside about 15 MiB of the worker's own; a leak within 0.1 s of its rate",
            not_covered=(
                "where the cgroup's limit is reached, the kernel ends the worker before the target",
                *place.alone,
            ),
        )

    def _disk(self, fault: Disk, place: _Place) -> Plan | Refusal:
        target = place.target
        if isinstance(target, ProcessTarget) and not _sees_the_same(target.identity.pid, fault.path):
            return Refusal(
                self.mechanism,
                f"{fault.path} is another folder for {target.label}: it has a mount namespace of its own",
            )
        config = _disk_config(fault)
        disk.check(disk.Config(**config))
        return Plan(
            self.mechanism,
            (
                place.worker(
                    "disk", disk.purpose(disk.Config(**config)), config, f"disk:{os.path.realpath(fault.path)}"
                ),
            ),
            accuracy="space to the block; the rate as far as the disk can",
            not_covered=("all who use that file system feel it, not the target alone",),
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where workers of a plan stand."""

    target: ProcessTarget | CgroupTarget
    folders: tuple[str, ...]
    site: Site

    @property
    def alone(self) -> tuple[str, ...]:
        return (
            () if self.folders else ("the target has no cgroup of its own: everything on this machine feels it alike",)
        )

    def worker(self, name: str, purpose: str, config: dict[str, Any], holds: str | None = None) -> Worker:
        """One worker of the module with this name; it holds `holds`, else this resource of the target."""
        target = self.target
        number = target.identity.pid if isinstance(target, ProcessTarget) else target.identities[0][1]
        return Worker(
            token=f"{self.site.run}/{self.site.fault}.{number}",
            module=f"squall.workers.{name}",
            purpose=f"{purpose} {'in the cgroup of' if self.folders else 'beside'} {target.label}",
            config={**config, "cgroups": list(self.folders)},
            holds=(holds or f"{target.key}:{name}",),
        )


def _cpu_share(fault: Cpu, target: ProcessTarget | CgroupTarget) -> tuple[str, float, int]:
    """Of what, in words; the share of a core for each worker; how many workers."""
    if fault.of == "core":
        return (f"each of {fault.workers} cores" if fault.workers > 1 else "a core"), float(fault.load), fault.workers
    folders = cgroups.folders_of(target.identity.pid).values() if isinstance(target, ProcessTarget) else target.folders
    quota = cgroups.cpu_quota(folders)
    cores = min(quota, os.cpu_count() or 1) if quota is not None else os.cpu_count() or 1
    wanted = float(fault.load) * cores
    workers = math.ceil(wanted)
    return f"the {cores:g} cores that it may use", wanted / workers, workers


def _memory_config(fault: Memory, target: ProcessTarget | CgroupTarget) -> dict[str, Any]:
    """The amount in bytes: a percentage is of the tightest limit that binds the target, or of the machine's memory."""
    total = machine_memory().total
    folders = cgroups.folders_of(target.identity.pid).values() if isinstance(target, ProcessTarget) else target.folders
    whole = min(cgroups.memory_limit(folders) or total, total)
    amount = int(fault.amount) if fault.amount is not None else int(whole * (fault.percent or 0.0))
    rate = int(fault.leak) if fault.leak is not None else None
    return {"amount_bytes": amount, "rate_bytes_per_s": rate, "spare_bytes": int(total * fault.spare)}


def _disk_config(fault: Disk) -> dict[str, Any]:
    return {
        "path": fault.path, "spare_bytes": int(fault.spare),
        "fill_bytes": int(fault.fill) if fault.fill is not None else None,
        "fill_share": float(fault.fill_percent) if fault.fill_percent is not None else None,
        "write_bytes_per_s": int(fault.write) if fault.write is not None else None,
    }  # fmt: skip


def _sees_the_same(pid: int, path: str) -> bool:
    """Whether the path is the same folder for that process; true where that may not be seen."""
    try:
        theirs, ours = Path(f"/proc/{pid}/root{path}").stat(), Path(path).stat()
    except PermissionError:
        return True
    except OSError:
        return not Path(path).exists()  # the worker's own check says what is wrong with it
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
