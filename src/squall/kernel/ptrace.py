"""A process held by ptrace(2): every thread stopped, its registers read, a system call made in its name.

Threads are seized, not attached, so that no SIGSTOP is seen by anybody; signals that arrive meanwhile are delivered when
it is let go. Should the tracer die, the kernel lets the process go at once. x86-64 only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import time
from typing import TYPE_CHECKING, Self

from squall.errors import ActionFailed
from squall.kernel import proc, process_memory

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Registers", "Tracee", "ptrace_read"]

_SINGLESTEP, _GETREGS, _SETREGS, _DETACH = 9, 12, 13, 17
_GETREGSET, _SEIZE, _INTERRUPT, _GETSIGMASK, _SETSIGMASK = 0x4204, 0x4206, 0x4207, 0x420A, 0x420B
_NT_X86_XSTATE = 0x202
_XSTATE_MOST = 1 << 16
_EVENT_STOP = 128
_WALL = 0x4000_0000
_SETTLE_S = 2.0
"""A thread stops when it next returns to user space; one that waits for a slow disk may not for this long."""
_ROUNDS = 16
_THREADS_MOST = 20_000
_ERRNO_MOST = 4095
_NO_CALL = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""

    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in (
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
            "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
        )
    ]  # fmt: skip


def ptrace_read(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    """Make one request about a thread that is held; what the kernel answers, OSError when it refuses."""
    result = int(_libc.ptrace(request, tid, address, data))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    ptrace_read(request, tid, address, data)


class Tracee:
    """`with Tracee(pid, start_ticks) as held:` - no thread of the process runs inside the block.

    For one thread of the tracer from beginning to end: the kernel knows tracers by thread. Raises ProcessLookupError
    when the process has ended, PermissionError when it may not be traced (or somebody else does), ActionFailed when a
    thread does not stop in time; whatever was held is let go then.
    """

    def __init__(self, pid: int, start_ticks: int) -> None:
        if platform.machine() != "x86_64":
            raise ActionFailed(f"processes can be held on x86-64 only, not on {platform.machine()}")
        self.pid, self._start_ticks = pid, start_ticks
        self._signals: dict[int, int] = {}
        """Every held thread, and the signal that it is to get when it is let go."""

    def __enter__(self) -> Self:
        stat = proc.read_stat(self.pid)
        if stat is None or stat.gone or stat.start_ticks != self._start_ticks:
            raise ProcessLookupError(3, f"process {self.pid} has ended")
        try:
            self._hold_all()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _hold_all(self) -> None:
        """Threads may start others until the last of them is held."""
        deadline = time.monotonic() + _SETTLE_S
        dead: set[int] = set()
        for _ in range(_ROUNDS):
            new = [tid for tid in self._threads() if tid not in self._signals and tid not in dead]
            if not new:
                break
            for tid in new:
                if not self._hold(tid, deadline):
                    dead.add(tid)
        else:
            raise ActionFailed(f"process {self.pid} starts threads faster than they can be stopped")
        if not self._signals:
            raise ProcessLookupError(3, f"process {self.pid} has ended")

    def _threads(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(f"/proc/{self.pid}/task")][:_THREADS_MOST]
        except FileNotFoundError:
            return []

    def _hold(self, tid: int, deadline: float) -> bool:
        """Stop one thread; False when it has ended."""
        try:
            _ptrace(_SEIZE, tid)
        except ProcessLookupError:
            return False
        except PermissionError:
            if _ended(self.pid, tid):
                return False
            raise
        self._signals[tid] = 0
        try:
            _ptrace(_INTERRUPT, tid)
            self._wait(tid, deadline)
        except ProcessLookupError:
            del self._signals[tid]
            return False
        return True

    def _wait(self, tid: int, deadline: float) -> int:
        """Wait until the thread has stopped, and remember the signal that it stopped for; returns the stop's signal."""
        while True:
            try:
                found, status = os.waitpid(tid, os.WNOHANG | _WALL)
            except ChildProcessError:
                raise ProcessLookupError(3, f"thread {tid} has ended") from None
            if found == tid:
                if not os.WIFSTOPPED(status):
                    raise ProcessLookupError(3, f"thread {tid} has ended")
                number = os.WSTOPSIG(status)
                if status >> 16 != _EVENT_STOP and number != signal.SIGTRAP:
                    self._signals[tid] = number
                return number
            if time.monotonic() > deadline:
                raise ActionFailed(
                    f"thread {tid} of process {self.pid} did not stop within {_SETTLE_S:g} s: it is in the kernel"
                )
            time.sleep(0.0001)

    def _let_go(self) -> None:
        for tid, number in self._signals.items():
            with contextlib.suppress(OSError):
                _ptrace(_DETACH, tid, 0, number)
        self._signals.clear()

    # ---- what can be done meanwhile

    @property
    def threads(self) -> list[int]:
        """The threads that are held."""
        return list(self._signals)

    def registers(self, tid: int) -> Registers:
        """A thread's registers."""
        found = Registers()
        _ptrace(_GETREGS, tid, 0, ctypes.addressof(found))
        return found

    def next_instructions(self) -> list[int]:
        """Where each thread goes on."""
        return [self.registers(tid).rip for tid in self._signals]

    def signal_mask(self, tid: int) -> int:
        """The signals that a thread holds back, bit n - 1 for signal n."""
        mask = ctypes.c_uint64()
        _ptrace(_GETSIGMASK, tid, 8, ctypes.addressof(mask))
        return mask.value

    def extended_state(self, tid: int) -> bytes:
        """A thread's floating point and vector registers, as XSAVE lays them out."""
        block = ctypes.create_string_buffer(_XSTATE_MOST)
        vector = (ctypes.c_uint64 * 2)(ctypes.addressof(block), len(block))
        _ptrace(_GETREGSET, tid, _NT_X86_XSTATE, ctypes.addressof(vector))
        return block.raw[: vector[1]]

    def set_registers(self, tid: int, registers: Registers) -> None:
        """Let a thread go on with these registers."""
        _ptrace(_SETREGS, tid, 0, ctypes.addressof(registers))

    def read(self, address: int, size: int) -> bytes:
        """The process's memory; OSError where it has none."""
        return process_memory.read(self.pid, address, size)

    def write(self, address: int, data: bytes) -> None:
        """Write over the process's memory, whatever its protection."""
        process_memory.write(self.pid, address, data)

    def call(self, instruction: int, number: int, *arguments: int) -> int:
        """Let a thread make a system call by stepping over a `syscall` instruction that it has anyway; its result.

        OSError for a result that is an errno. The thread is as it was afterwards: all signals are held back meanwhile,
        and a call that the stop interrupted is started again by the kernel when it goes on.
        """
        tid = self.pid if self.pid in self._signals else next(iter(self._signals))
        before = self.registers(tid)
        changed = Registers.from_buffer_copy(before)
        changed.rax, changed.orig_rax, changed.rip = number, _NO_CALL, instruction
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments, strict=False):
            setattr(changed, name, value & _NO_CALL)
        mask = ctypes.c_uint64(self.signal_mask(tid))
        blocked = ctypes.c_uint64(_NO_CALL)
        try:
            _ptrace(_SETSIGMASK, tid, 8, ctypes.addressof(blocked))
            _ptrace(_SETREGS, tid, 0, ctypes.addressof(changed))
            _ptrace(_SINGLESTEP, tid)
            self._wait(tid, time.monotonic() + _SETTLE_S)
            after = self.registers(tid)
        finally:
            _ptrace(_SETREGS, tid, 0, ctypes.addressof(before))
            _ptrace(_SETSIGMASK, tid, 8, ctypes.addressof(mask))
        if after.rip != instruction + 2:
            raise ActionFailed(f"process {self.pid} could not be made to call the kernel: it stopped at {after.rip:#x}")
        result = ctypes.c_int64(after.rax).value
        if -_ERRNO_MOST <= result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def _ended(pid: int, tid: int) -> bool:
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", errors="replace") as file:
            return file.read().rpartition(") ")[2][:1] in ("Z", "X", "x")
    except OSError:
        return True
