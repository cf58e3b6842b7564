"""How much memory this machine has and could still give."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MachineMemory", "machine_memory"]


class MachineMemory(NamedTuple):
    """Bytes, from /proc/meminfo (proc_meminfo(5)): `available` is the kernel's estimate of what can be had without swapping."""

    total: int
    available: int


def machine_memory() -> MachineMemory:
    """Read it now; about 30 us."""
    with open("/proc/meminfo", "rb") as file:
        rows = dict(line.split(b":", 1) for line in file)
    return MachineMemory(*(int(rows[name].split()[0]) * 1024 for name in (b"MemTotal", b"MemAvailable")))
