"""A running Go program: where in its file and in its memory a function of it begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.kernel import process_memory
from squall.kernel.elf import Elf, ImageError
from squall.kernel.gosym import GoFunctions, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["REGISTER_ABI", "GoFunction", "file_offset", "find_function", "is_go", "load_bias"]

REGISTER_ABI = (1, 17)
"""From this release on arguments are in registers: the first word in rax, the goroutine in r14 (amd64)."""
_X86_64 = 62


@dataclass(frozen=True, slots=True)
class GoFunction:
    """One function in a running process. `address` is in its memory, `offset` in its file; `release` (0, 0) is not said."""

    name: str
    offset: int
    address: int
    release: tuple[int, int]
    stripped: bool

    @property
    def in_registers(self) -> bool:
        """Whether its arguments are known to be in registers."""
        return self.release >= REGISTER_ABI


def is_go(pid: int) -> bool:
    """Whether a process runs a Go program; OSError where its file cannot be read."""
    try:
        with Elf.open(f"/proc/{pid}/exe") as elf:
            return elf.is_go
    except ImageError:
        return False


def find_function(pid: int, name: str) -> GoFunction:
    """The function with the linker's name in a process; ImageError, which says why not, and OSError."""
    with Elf.open(f"/proc/{pid}/exe") as elf:
        elf.name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        functions = GoFunctions(elf)
        if elf.machine != _X86_64:
            raise ImageError(f"{elf.name} is not for x86-64: there nothing is known of where Go keeps arguments")
        address = functions.address(name)
        if address is None:
            raise ImageError(f"{elf.name} has no function {name}{_others(functions, name)}")
        bias = load_bias(elf, process_memory.mappings(pid), _inode(pid))
        release = version_of(elf.go_version)
        return GoFunction(name, elf.file_offset(address), address + bias, release, functions.stripped)


def _others(functions: GoFunctions, name: str) -> str:
    """Names that may have been meant."""
    last = name.rpartition(".")[2]
    near = [one for one in functions.matching(f".{last}", 200) if one.endswith(f".{last}") and "type:" not in one]
    if name in near:
        return ": the compiler has inlined it everywhere"
    return f" (there is {', '.join(near[:5])})" if near else " (it may have been left out as unused)"


def _inode(pid: int) -> int:
    return os.stat(f"/proc/{pid}/exe").st_ino


def load_bias(elf: Elf, mappings: Sequence[process_memory.Mapping], inode: int) -> int:
    """What is added to the file's addresses in this process; ImageError when the file is not mapped in it."""
    if not elf.position_independent:
        return 0
    for one in mappings:
        if one.inode == inode and "x" in one.permissions:
            return one.start - elf.address_of(one.offset)
    raise ImageError(f"{elf.name} is not mapped into the process as it is on the disk")


def file_offset(mappings: Sequence[process_memory.Mapping], inode: int, address: int) -> int | None:
    """Where in the file code at an address of a process comes from; None when it is not the file's code."""
    for one in mappings:
        if one.inode == inode and "x" in one.permissions and one.start <= address < one.end:
            return address - one.start + one.offset
    return None
