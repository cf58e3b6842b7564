"""The CPU's time stamp counter, as code without a clock at hand can read it (x86-64)."""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from functools import cache

from squall.errors import CannotInject

__all__ = ["Rate", "read", "refusal"]

_READ = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"
"""rdtsc; shl rdx, 32; or rax, rdx; ret"""
_FIRST_S = 0.02


def refusal() -> str | None:
    """Why the counter cannot serve as a clock on this machine, None when it can."""
    if platform.machine() != "x86_64":
        return "it is x86-64's"
    with open("/proc/cpuinfo") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    if "tsc" not in flags:
        return "this CPU has no time stamp counter"
    if "constant_tsc" not in flags and "tsc_known_freq" not in flags and "hypervisor" not in flags:
        return "the time stamp counter of this CPU does not run evenly"
    return None


@cache
def _code() -> tuple[mmap.mmap, ctypes._CFunctionType]:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_READ)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return page, ctypes.CFUNCTYPE(ctypes.c_uint64)(address)


def read() -> int:
    """The counter now; CannotInject where this process may not run code of its own making."""
    try:
        return int(_code()[1]())
    except (OSError, PermissionError) as error:
        raise CannotInject(f"the time stamp counter cannot be read: {error.strerror}") from error


class Rate:
    """How fast the counter runs, measured ever better from when this was made."""

    def __init__(self) -> None:
        self._ns, self._ticks = time.monotonic_ns(), read()
        time.sleep(_FIRST_S)

    def after(self, ns: int) -> int:
        """What the counter will be so many ns from now."""
        ticks, now = read(), time.monotonic_ns()
        return ticks + ns * (ticks - self._ticks) // max(1, now - self._ns)
