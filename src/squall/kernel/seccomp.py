"""What the seccomp filters of another process would do with a system call: read through ptrace, run here.

PTRACE_SECCOMP_GET_FILTER (ptrace(2)) gives the classic BPF programs; it needs CAP_SYS_ADMIN, a kernel with
CONFIG_CHECKPOINT_RESTORE, and a caller that is not confined itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from squall.kernel.ptrace import Tracee, ptrace_read

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALLOW", "LOG", "filters", "outcome"]

ALLOW, LOG = 0x7FFF0000, 0x7FFC0000
_GET_FILTER = 0x420C
_ARCH_X86_64 = 0xC000003E
_FILTERS_MOST = 64
_INSTRUCTIONS_MOST = 4096
_INSTRUCTION = struct.Struct("<HBBI")
_WORD = (1 << 32) - 1

Program = list[tuple[int, int, int, int]]
"""The instructions of one filter: code, jump if true, jump if false, constant."""


def filters(pid: int, start_ticks: int) -> list[Program]:
    """Every filter of any thread of a process, each once; OSError where they may not be read.

    The process stands still for it, about a millisecond.
    """
    with Tracee(pid, start_ticks) as held:
        found = {code for tid in held.threads for code in _of_thread(tid)}
    return [list(_INSTRUCTION.iter_unpack(code)) for code in found]


def _of_thread(tid: int) -> list[bytes]:
    found: list[bytes] = []
    for index in range(_FILTERS_MOST):
        room = ctypes.create_string_buffer(_INSTRUCTION.size * _INSTRUCTIONS_MOST)
        try:
            count = ptrace_read(_GET_FILTER, tid, index, ctypes.addressof(room))
        except FileNotFoundError:
            return found
        found.append(room.raw[: count * _INSTRUCTION.size])
    raise OSError(7, os.strerror(7))


def outcome(program: Program, number: int, arguments: Sequence[int] = ()) -> int:
    """What a filter answers to a system call of x86-64: ALLOW or another of seccomp's actions (linux/seccomp.h)."""
    data = struct.pack("<iIQ6Q", number, _ARCH_X86_64, 0, *(*arguments, *(0,) * 6)[:6])
    accumulator = index = at = 0
    memory = [0] * 16
    for _ in range(_INSTRUCTIONS_MOST):
        code, if_true, if_false, constant = program[at]
        at += 1
        kind = code & 7
        if kind == 0:  # load
            accumulator = _loaded(code, constant, data, memory)
        elif kind == 1:  # load the index
            index = memory[constant] if code & 0xE0 == 0x60 else _length_or(code, constant)  # noqa: PLR2004
        elif kind in (2, 3):  # store
            memory[constant] = accumulator if kind == 2 else index  # noqa: PLR2004
        elif kind == 4:  # noqa: PLR2004 - arithmetic
            accumulator = _computed(code & 0xF0, accumulator, index if code & 8 else constant)
        elif kind == 5:  # noqa: PLR2004 - jump
            operand = index if code & 8 else constant
            at += constant if code & 0xF0 == 0 else if_true if _holds(code & 0xF0, accumulator, operand) else if_false
        elif kind == 6:  # noqa: PLR2004 - return
            return accumulator if code & 0x18 == 0x10 else constant  # noqa: PLR2004
        else:
            accumulator, index = (index, index) if code & 0xF8 else (accumulator, accumulator)
    raise ValueError("the filter does not end")


def _loaded(code: int, constant: int, data: bytes, memory: list[int]) -> int:
    mode = code & 0xE0
    if mode == 0x20:  # noqa: PLR2004 - from the call
        return int(struct.unpack_from("<I", data, constant)[0])
    return memory[constant] if mode == 0x60 else _length_or(code, constant)  # noqa: PLR2004


def _length_or(code: int, constant: int) -> int:
    return 64 if code & 0xE0 == 0x80 else constant  # noqa: PLR2004 - the size of struct seccomp_data


def _computed(operation: int, left: int, right: int) -> int:
    if operation in (0x30, 0x90) and not right:
        raise ValueError("the filter divides by zero")
    results = {
        0x00: left + right, 0x10: left - right, 0x20: left * right, 0x30: left // (right or 1), 0x40: left | right,
        0x50: left & right, 0x60: left << (right & 31), 0x70: left >> (right & 31), 0x80: -left,
        0x90: left % (right or 1), 0xA0: left ^ right,
    }  # fmt: skip
    return results[operation] & _WORD


def _holds(comparison: int, left: int, right: int) -> bool:
    return {0x10: left == right, 0x20: left > right, 0x30: left >= right, 0x40: bool(left & right)}[comparison]
