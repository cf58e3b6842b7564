"""io.* and syscall.* by leading a process's own `syscall` instructions through a stub."""

from __future__ import annotations

import contextlib
import errno
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from squall.actions import SyscallPatch
from squall.errors import CannotInject, SquallError, TargetError
from squall.faults import io, syscall
from squall.injectors.base import Capability, Host, Plan, Refusal, Site, not_permitted
from squall.kernel import proc, process_memory, seccomp, syscall_patch, syscall_sites
from squall.kernel.syscall_numbers import NUMBERS
from squall.kernel.syscall_stub import Rule
from squall.targets import CgroupTarget, ProcessIdentity, ProcessTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["FAMILIES", "SyscallPatchInjector"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "open": ("open", "openat", "openat2", "creat"),
    "read": ("read", "pread64", "readv", "preadv", "preadv2"),
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2"),
    "sync": ("fsync", "fdatasync", "syncfs", "sync_file_range"),
    "stat": ("stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"),
    "truncate": ("truncate", "ftruncate", "fallocate"),
    "unlink": ("unlink", "unlinkat", "rmdir"),
    "rename": ("rename", "renameat", "renameat2"),
    "mkdir": ("mkdir", "mkdirat"),
}
"""The system calls by which each of `io.*`'s calls is made."""

_PATHS_MOST = 8
_PROCESSES_MOST = 64
_LINKS_MOST = 40


class SyscallPatchInjector:
    """Changes the code of a running process, a few instructions of it, and gives it a stub that decides on each call."""

    mechanism: ClassVar[str] = "syscall-patch"
    faults: ClassVar[tuple[str, ...]] = ("io.error", "io.delay", "io.corrupt", "syscall.error", "syscall.delay")
    summary: ClassVar[str] = (
        "patches the process's own syscall instructions (C libraries, static Go); expires by itself 1 s after its worker"
    )
    recoverability: ClassVar[Recoverability] = "guarded"

    def capable(self, host: Host) -> Capability:  # noqa: ARG002, D102 - as the protocol says
        machine = platform.machine()
        return Capability(machine == "x86_64", "" if machine == "x86_64" else f"for x86-64 only, not for {machine}")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(fault, io.OnFiles | syscall.OnSystemCalls):
            return Refusal(self.mechanism, f"knows nothing of {fault.type}")
        rule = _rule(fault, forked_too=isinstance(target, CgroupTarget) or fault.descendants)
        try:
            hit = _hit(fault, target)
            missed = sum(_looked_at(identity, rule.numbers) for identity in hit)
            actions = tuple(
                SyscallPatch(
                    f"{site.run}/{site.fault}.{identity.pid}", identity, _name(target, identity),
                    asdict(_with_real_paths(rule, identity.pid)), site.seed, _purpose(fault),
                )
                for identity in hit
            )  # fmt: skip
        except (OSError, SquallError) as error:
            return Refusal(self.mechanism, str(error))
        return Plan(
            self.mechanism,
            actions,
            _accuracy(fault),
            accuracy_ns=100_000,
            not_covered=_not_covered(fault, target, missed),
        )


def _hit(fault: io.OnFiles | syscall.OnSystemCalls, target: Target) -> tuple[ProcessIdentity, ...]:
    """The processes to patch; CannotInject where this user may not, or there are none or too many."""
    if isinstance(target, CgroupTarget):
        identities = []
        for pid in target.processes():
            with contextlib.suppress(TargetError):  # it has ended since it was listed
                identities.append(ProcessIdentity.of(pid))
        if not 0 < len(identities) <= _PROCESSES_MOST:
            raise CannotInject(f"patches 1 to {_PROCESSES_MOST} processes, and {target.label} has {len(identities)}")
        reason = next((reason for one in identities if (reason := one.refusal()) is not None), None)
    elif isinstance(target, ProcessTarget):
        covered = target.with_descendants() if fault.descendants else target
        identities, reason = list(covered.all), not_permitted(covered)
    else:
        raise CannotInject(f"patches processes, it does not work on a {target.kind}")
    if reason is not None:
        raise CannotInject(reason)
    return tuple(identities)


def _name(target: Target, identity: ProcessIdentity) -> str:
    if isinstance(target, ProcessTarget):
        return target.command
    stat = identity.stat()
    return stat.comm if stat is not None else "?"


def _untouchable(identity: ProcessIdentity) -> str | None:
    """Why a process cannot be patched; reads only."""
    pid = identity.pid
    if (reason := process_memory.memory_refusal(pid)) is not None:
        return reason
    if debugger := process_memory.tracer(pid):
        return f"process {pid} is held by a debugger (pid {debugger}): only one may trace it"
    if _time_namespace(pid) != _time_namespace("self"):
        return f"process {pid} is in a time namespace of its own, by whose clock a lease would not end"
    return _confined(identity) if proc.seccomp_mode(pid) else None


def _time_namespace(pid: int | str) -> int:
    """The inode of a process's time namespace, 0 where the kernel has none."""
    try:
        return Path(f"/proc/{pid}/ns/time").stat().st_ino
    except OSError:
        return 0


def _confined(identity: ProcessIdentity) -> str | None:
    """Why seccomp forbids the stub's own system calls in a process, which may end it for one; asked of its filters."""
    pid = identity.pid
    try:
        programs = seccomp.filters(pid, identity.start_ticks)
    except (OSError, SquallError) as error:
        return f"process {pid} is confined by seccomp, and its filters cannot be read: {error}"
    if not programs:
        return f"process {pid} is confined by seccomp to read, write and exit"
    try:
        for name, (number, *arguments) in syscall_patch.OWN_CALLS.items():
            if any(seccomp.outcome(one, number, arguments) not in (seccomp.ALLOW, seccomp.LOG) for one in programs):
                return f"seccomp forbids process {pid} the call {name}, which the stub makes"
    except (IndexError, KeyError, ValueError) as error:
        return f"process {pid} is confined by seccomp, by a filter that is not understood: {error}"
    return None


def _looked_at(identity: ProcessIdentity, numbers: tuple[int, ...]) -> int:
    """How many places that make these calls cannot be patched; CannotInject when none can, or it may not be touched."""
    if (reason := _untouchable(identity)) is not None:
        raise CannotInject(reason)
    syscall_patch.lay_out(identity.pid, numbers)
    return syscall_patch.uncovered(syscall_sites.modules(identity.pid), numbers)


def _rule(fault: io.OnFiles | syscall.OnSystemCalls, *, forked_too: bool) -> Rule:
    if isinstance(fault, io.Corrupt):
        names = FAMILIES["read"]
    elif isinstance(fault, io.Error | io.Delay):
        names = tuple(name for call in fault.calls for name in FAMILIES[call])
    else:
        names = tuple(getattr(fault, "calls", ()))
    return Rule(
        numbers=tuple(sorted({NUMBERS[name] for name in names})),
        error=getattr(errno, fault.errno) if isinstance(fault, io.Error | syscall.Error) else 0,
        delay_ns=int(fault.delay) if isinstance(fault, io.Delay | syscall.Delay) else 0,
        jitter_ns=int(fault.jitter) if isinstance(fault, io.Delay | syscall.Delay) else 0,
        share=float(fault.percent), times=fault.times or 0, files=isinstance(fault, io.OnFiles), children=forked_too,
        spoil=isinstance(fault, io.Corrupt), paths=fault.paths if isinstance(fault, io.OnFiles) else (),
    )  # fmt: skip


def _with_real_paths(rule: Rule, pid: int) -> Rule:
    """The paths as they were written and as they are with links followed: open files are known by the latter."""
    paths = list(rule.paths)
    for path in rule.paths:
        real = _real_path(path, pid) if "*" not in path else path
        paths += [real] if real not in paths else []
    if len(paths) > _PATHS_MOST:
        raise CannotInject(f"with the links in them followed these are more than {_PATHS_MOST} paths")
    return replace(rule, paths=tuple(paths))


def _real_path(path: str, pid: int) -> str:
    """A path with its links followed as the process itself would: in its mount namespace, from its root."""
    done: list[str] = []
    parts, links = path.split("/")[::-1], 0
    while parts:
        part = parts.pop()
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            try:
                link = str(Path(f"/proc/{pid}/root", *done, part).readlink())
            except OSError:  # no link, or nothing there
                done.append(part)
                continue
            links += 1
            if links > _LINKS_MOST:
                return path
            if link.startswith("/"):
                done = []
            parts += link.split("/")[::-1]
    return "/" + "/".join(done)


def _purpose(fault: io.OnFiles | syscall.OnSystemCalls) -> str:
    calls = ", ".join(getattr(fault, "calls", ("read",)))
    where = f" in {', '.join(fault.paths)}" if isinstance(fault, io.OnFiles) and fault.paths else ""
    share = f"{fault.percent} of " if fault.percent < 1 else ""
    if isinstance(fault, io.Error | syscall.Error):
        return f"fail {share}{calls}{where} with {fault.errno}"
    if isinstance(fault, io.Delay | syscall.Delay):
        spread = f" +-{fault.jitter}" if fault.jitter else ""
        return f"delay {share}{calls}{where} by {fault.delay}{spread}"
    return f"change a bit in {share}what is read{where}"


def _accuracy(fault: Fault) -> str:
    if isinstance(fault, io.Delay | syscall.Delay):
        return "never early, late by what the kernel's nanosleep is (about 0.1 ms); the calling thread alone waits"
    return "exactly the calls that fit; the share is drawn for each of them"


def _not_covered(fault: Fault, target: Target, missed: int) -> tuple[str, ...]:
    what = [
        "io_uring and memory-mapped files: they make no system call for each access",
        "code that is loaded or compiled after the fault began",
    ]
    if isinstance(target, CgroupTarget):
        what.append("processes that come into the group without having been forked from one that is hit")
    if missed:
        what.append(
            f"{missed} place{'s' if missed > 1 else ''} of the program or its libraries that cannot be patched safely"
        )
    if isinstance(fault, io.OnFiles) and fault.paths:
        what.append("links inside a path that the process itself names: it is taken by its letters")
    return tuple(what)
