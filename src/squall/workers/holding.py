"""What a worker does that holds programs in the kernel: renew their lease, publish their counts, take new settings.

The worker's descriptors are all that keeps the programs there. It renews the lease several times a second; stopped or
starved, it does not, and within a second everything passes as if the programs were not there.
"""

from __future__ import annotations

import json
import os
import struct
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.kernel.bpf import Collection
    from squall.workers.lifeline import Lifeline

__all__ = ["COUNTERS_FD", "COUNTERS_NAME", "LEASE_NS", "RENEW_S", "Counts", "Held", "Lease", "hold", "seed"]

LEASE_NS = 1_000_000_000
RENEW_S = 0.2
COUNTERS_FD = 200
"""Far above what a worker has open when it begins to hold: the counts must not take the place of what it holds."""
COUNTERS_NAME = "squall-counters"
"""The memory file in which a worker's counts are read by others."""
_COUNTS_MOST = 8192
_ZERO = struct.pack("<I", 0)


class Lease:
    """The lease of one collection. `lapses` counts how often it ended before it was renewed."""

    def __init__(self, collection: Collection) -> None:
        self._map = collection.map("lease")
        self._until_ns = 0
        self.lapses = 0

    def renew(self) -> None:
        """Let the programs work for another second."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if self._until_ns and now > self._until_ns:
            self.lapses += 1
        self._until_ns = now + LEASE_NS
        self._map[_ZERO] = struct.pack("<Q", self._until_ns)


def seed(collection: Collection, value: int) -> None:
    """Let the draws of a collection begin at this seed."""
    collection.map("draws")[_ZERO] = struct.pack("<Q", value & (1 << 64) - 1)


class Counts:
    """The worker's side of its counts: a small memory file that goes with the worker."""

    def __init__(self) -> None:
        made = os.memfd_create(COUNTERS_NAME, os.MFD_CLOEXEC)
        os.dup2(made, COUNTERS_FD, inheritable=False) if made != COUNTERS_FD else None
        if made != COUNTERS_FD:
            os.close(made)

    def publish(self, counts: Mapping[str, int]) -> None:
        """Replace them; a reader sees the old ones or the new ones: one write of one block."""
        block = json.dumps(dict(counts)).encode()
        assert len(block) <= _COUNTS_MOST  # noqa: S101 - a few names and numbers
        os.pwrite(COUNTERS_FD, block.ljust(_COUNTS_MOST), 0)


class Held(Protocol):
    """What a worker holds: built when it starts, asked five times a second, closed at the end."""

    def renew(self) -> None:
        """Renew every lease and look after what may have changed (an interface that came, a name's new address)."""

    def counts(self) -> Mapping[str, int]:
        """How often it hit, and what it let pass; `lapses` where a lease ended before its time."""

    def become(self, config: Mapping[str, Any]) -> None:
        """Take a new configuration without a gap."""

    def close(self) -> None:
        """Detach and give everything back."""


def hold(line: Lifeline, held: Held) -> None:
    """Keep it until the life line ends (which raises Ended); says "ready" once the first lease runs."""
    try:
        counts = Counts()
        held.renew()
        counts.publish(held.counts())
        line.ready()
        due = time.monotonic() + RENEW_S
        while True:
            config = line.wait(due - time.monotonic())
            if config is not None:
                held.become(config)
            if config is None or time.monotonic() >= due:
                held.renew()
                due = time.monotonic() + RENEW_S
            counts.publish(held.counts())
    finally:
        held.close()
