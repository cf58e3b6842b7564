"""Running a piece of Python inside a process that runs CPython, where the interpreter itself would run a signal's handler.

A thread that sleeps in the kernel is made to call Py_AddPendingCall, as from a signal's handler: a function of the C API
that is made to be called so, by any thread, without the interpreter's lock. The interpreter calls what was added in the
process's main thread, between two instructions of Python, with its lock held. Nothing else of the interpreter's is
touched, no thread is kept from running meanwhile, and should this process die at any moment, the other one goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.errors import ActionFailed, CannotInject
from squall.kernel import process_memory, signal_frame
from squall.kernel.elf import Elf, ImageError
from squall.kernel.ptrace import Registers, Tracee

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Interpreter",
    "Script",
    "give_back",
    "interpreter",
    "never_runs_python",
    "run",
    "time_namespace",
    "withdraw",
]

_ADD, _RUN = "Py_AddPendingCall", "PyRun_SimpleString"
_SYSCALL = b"\x0f\x05"
_PAGE = 4096
_MMAP, _MUNMAP = 9, 11
_READ_WRITE, _PRIVATE_ANONYMOUS = 3, 0x22
_ATTEMPTS, _PAUSE_S = 200, 0.01
_DIRECTION_TRAP_RESUME = 0x1_0500
"""Flags of a thread that must be clear where a function begins: direction, single step, resume."""
_FILES_MOST = 4096
_WAITS = {
    202: "waits for a lock",
    35: "sleeps",
    230: "sleeps",
    34: "waits for signals",
    128: "waits for signals",
    130: "waits for signals",
}
"""System calls from which CPython does not come back to run Python until what they wait for is there (x86-64)."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Where things are in a process that runs CPython: addresses in its memory."""

    add_pending_call: int
    run_string: int
    syscall: int
    restorer: int


@dataclass(frozen=True, slots=True)
class Script:
    """A piece of Python that was handed over: memory of its own in the process."""

    pid: int
    start_ticks: int
    address: int
    size: int
    syscall: int


def interpreter(pid: int) -> Interpreter:
    """Find CPython in a process; CannotInject where there is none, or it may not be called this way; OSError."""
    mappings = process_memory.mappings(pid)
    symbols: dict[str, int] = {}
    restorer = syscall = 0
    for one in _code(mappings):
        try:
            with Elf.open(f"/proc/{pid}/map_files/{one.start:x}-{one.end:x}") as elf:
                bias = one.start - elf.address_of(one.offset)
                for name in (_ADD, _RUN):
                    found = elf.symbol(name)
                    if found is not None:
                        symbols.setdefault(name, found.address + bias)
        except (ImageError, OSError):
            continue
        if not restorer and _is_c_library(one.name):
            text = process_memory.read(pid, one.start, one.end - one.start)
            at = text.find(signal_frame.RESTORER)
            if at >= 0:
                restorer, syscall = one.start + at, one.start + text.find(_SYSCALL)
    if len(symbols) < 2:  # noqa: PLR2004 - both
        raise CannotInject("it runs no CPython whose functions can be found (python, or libpython)")
    if not restorer:
        raise CannotInject("its C library has no way out of signal handlers that is known")
    if _has_shadow_stack(pid):
        raise CannotInject("its return addresses are guarded by a shadow stack")
    return Interpreter(symbols[_ADD], symbols[_RUN], syscall, restorer)


def _code(mappings: Iterable[process_memory.Mapping]) -> list[process_memory.Mapping]:
    return [one for one in mappings if "x" in one.permissions and one.name.startswith("/")][:_FILES_MOST]


def _is_c_library(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith(("libc.so", "libc-2", "ld-musl", "libc.musl", "libpthread"))


def _has_shadow_stack(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        return any(line.startswith("x86_Thread_features:") and "shstk" in line for line in file)
    return False


def run(pid: int, start_ticks: int, where: Interpreter, source: str, *, attempts: int = _ATTEMPTS) -> Script:
    """Hand a piece of Python over: it runs when the main thread next runs Python, in __main__'s namespace.

    It must end without an exception. The memory that it is in stays until `withdraw`. ProcessLookupError when the
    process has ended, ActionFailed when none of its threads sleeps whenever it is looked at (every 10 ms), PermissionError, OSError.
    """
    text = source.encode() + b"\0"
    size = (len(text) + _PAGE - 1) & ~(_PAGE - 1)
    for _ in range(attempts):
        with Tracee(pid, start_ticks) as held:
            tid = _sleeper(held)
            if tid is not None:
                address = held.call(where.syscall, _MMAP, 0, size, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
                held.write(address, text)
                _let_call(held, tid, where, (where.run_string, address))
                return Script(pid, start_ticks, address, size, where.syscall)
        time.sleep(_PAUSE_S)
    raise ActionFailed(f"no thread of process {pid} was ever asleep when it was looked at, {attempts} times")


def _sleeper(held: Tracee) -> int | None:
    """A thread that was asleep in a system call: it holds no lock that the call may want. Best one that will not notice."""
    asleep = {tid: signal_frame.was_sleeping(held.registers(tid)) for tid in held.threads}
    return min((tid for tid, code in asleep.items() if code), key=lambda tid: asleep[tid], default=None)


def _let_call(held: Tracee, tid: int, where: Interpreter, arguments: tuple[int, int]) -> None:
    before = held.registers(tid)
    frame = signal_frame.frame(before, held.extended_state(tid), held.signal_mask(tid), where.restorer)
    held.write(frame.address, frame.contents)
    changed = Registers.from_buffer_copy(before)
    changed.rip, changed.rsp, changed.rax, changed.orig_rax = where.add_pending_call, frame.address, 0, (1 << 64) - 1
    changed.rdi, changed.rsi = arguments
    changed.eflags &= ~_DIRECTION_TRAP_RESUME
    held.set_registers(tid, changed)


def withdraw(script: Script) -> None:
    """Let a piece of Python do nothing when it has not run yet; harmless when the process is gone."""
    with contextlib.suppress(OSError):
        process_memory.write(script.pid, script.address, b"pass\0")


def give_back(script: Script) -> None:
    """Give the memory back of a piece of Python that has run; harmless when the process is gone."""
    with contextlib.suppress(OSError, ActionFailed), Tracee(script.pid, script.start_ticks) as held:
        held.call(script.syscall, _MUNMAP, script.address, script.size)


def never_runs_python(pid: int) -> str | None:
    """What the main thread does instead of running Python, for as long as it likes; None: it may run some at any moment."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/task/{pid}/syscall") as file:
        return _WAITS.get(int(file.read().split()[0]))
    return None


def time_namespace(pid: int) -> int:
    """The inode of a process's time namespace, 0 where the kernel has none (before 5.6)."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/time").st_ino
    return 0
