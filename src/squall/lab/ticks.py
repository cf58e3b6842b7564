"""How fast this processor's time stamp counter runs, which is also an emulated processor's.

A guest that measures it itself against its emulated timers is far off when the host is busy: seen, a kernel whose clock
ran twenty-five times too fast. So it is told.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from functools import cache

__all__ = ["kilohertz"]

_READ_COUNTER = bytes.fromhex("0f3148c1e2204809d0c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
_WINDOW_SECONDS = 0.2
_TRIES = 50


@cache
def kilohertz() -> int:
    """Measured once a process, against CLOCK_MONOTONIC_RAW, to about a part in ten thousand."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_READ_COUNTER)
        place = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(place))
        first = min(_moment(read) for _ in range(_TRIES))
        time.sleep(_WINDOW_SECONDS)
        last = min(_moment(read) for _ in range(_TRIES))
        del read, place  # else the page cannot be given back
    return round((last[2] - first[2]) * 1_000_000 / (last[1] - first[1]))


def _moment(read: ctypes._FuncPointer) -> tuple[int, int, int]:
    """How long it took to look, then the time in ns and the counter: the quickest look is the truest."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    counter = read()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return after - before, (before + after) // 2, counter
