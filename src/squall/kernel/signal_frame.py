"""What the kernel puts on a thread's stack when it delivers a signal, so that rt_sigreturn(2) brings everything back (x86-64).

Whoever lets a held thread call a function this way needs not be there any more when it returns: all that the thread was
doing lies on its own stack, and its own C library's way out of signal handlers restores it. The layout is that of
arch/x86/include/uapi/asm/{sigcontext,ucontext}.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from squall.kernel.ptrace import Registers

__all__ = ["RESTORER", "Frame", "frame", "was_sleeping"]

RESTORER = b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05"
"""mov rax, 15; syscall: rt_sigreturn, as every C library has it for its signal handlers."""

_RED_ZONE = 128
_FLAGS_XSTATE, _FLAGS_SEGMENTS = 1, 6
_NO_SUCH_FLAGS = 0x7F
"""An alternate stack with flags that do not exist: the kernel leaves the thread's own as it is."""
_CONTEXT_SIZE = 304
_SIGINFO_SIZE = 128
_SAVED = (
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip",
    "eflags",
)  # fmt: skip
_SOFTWARE_AT, _SOFTWARE = 464, struct.Struct("<IIQI28x")
_MAGIC1, _MAGIC2 = 0x46505853, struct.pack("<I", 0x46505845)
_XSTATE_ALIGNMENT = 64
_NOINTR, _SYS, _NOHAND, _BLOCK, _INTERRUPTED = 513, 512, 514, 516, 4
_NEVER_RESTARTED = (7, 23, 232, 270, 271, 281, 441)
"""poll, select, epoll_wait and their kin end with EINTR whatever interrupts them (signal(7))."""
_RESTARTED = (_SYS, _NOINTR)


class Frame(NamedTuple):
    """Bytes for the stack, from `address` on; a function that begins with its stack pointer there returns to the restorer."""

    address: int
    contents: bytes


def was_sleeping(registers: Registers) -> int:
    """The code that a system call was interrupted with, EINTR or one of the kernel's own for calls that begin again.

    0: the thread was not asleep in one.
    """
    code = (1 << 64) - registers.rax
    if registers.orig_rax >= 1 << 63:
        return 0
    waits = code == _INTERRUPTED and registers.orig_rax in _NEVER_RESTARTED
    return code if waits or code in (_SYS, _NOINTR, _NOHAND, _BLOCK) else 0


def frame(before: Registers, xstate: bytes, mask: int, restorer: int) -> Frame:
    """The frame that brings a held thread back to `before`; `xstate` is its extended state (NT_X86_XSTATE).

    A system call that was interrupted begins again, or ends with EINTR where it would after any signal.
    """
    values = {name: getattr(before, name) for name in _SAVED}
    if code := was_sleeping(before):
        if code in _RESTARTED:
            values["rax"], values["rip"] = before.orig_rax, before.rip - 2
        else:
            values["rax"] = (1 << 64) - _INTERRUPTED
    area = _signal_xstate(xstate)
    xstate_at = (before.rsp - _RED_ZONE - len(area)) & ~(_XSTATE_ALIGNMENT - 1)
    address = ((xstate_at - 8 - _CONTEXT_SIZE - _SIGINFO_SIZE) & ~15) - 8
    segments = (before.cs & 0xFFFF) | (before.ss & 0xFFFF) << 48
    context = struct.pack("<QQQiiQ", _FLAGS_XSTATE | _FLAGS_SEGMENTS, 0, 0, _NO_SUCH_FLAGS, 0, 0)
    context += struct.pack(f"<{len(_SAVED)}Q", *values.values())
    context += struct.pack("<QQQQQQ64xQ", segments, 0, 0, mask, 0, xstate_at, mask)
    assert len(context) == _CONTEXT_SIZE  # noqa: S101 - the kernel's own
    contents = struct.pack("<Q", restorer) + context
    return Frame(address, contents.ljust(xstate_at - address, b"\0") + area)


def _signal_xstate(xstate: bytes) -> bytes:
    """The extended state as a signal's frame has it: it says of itself how large it is and what is in it."""
    area = bytearray(xstate)
    (features,) = struct.unpack_from("<Q", area, _SOFTWARE_AT)
    _SOFTWARE.pack_into(area, _SOFTWARE_AT, _MAGIC1, len(area) + len(_MAGIC2), features, len(area))
    return bytes(area) + _MAGIC2
