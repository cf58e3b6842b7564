"""A worker that holds programs in the kernel."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from squall.actions.worker import Worker, surviving
from squall.workers.holding import COUNTERS_FD, COUNTERS_NAME

__all__ = ["KernelWorker", "published"]


@dataclass(frozen=True)
class KernelWorker(Worker, kind="kernel-worker", recoverability="lease"):
    """Start a worker whose descriptors keep programs in the kernel; they go when it ends, however it ends.

    Its counts are its own (packets, calls, connections), read from its memory file while it lives.
    """

    def counters(self) -> dict[str, int]:
        """The worker's counts; empty when it is gone."""
        counts: dict[str, int] = {}
        for stat in surviving(self.token):
            for name, count in published(stat.pid).items():
                counts[name] = counts.get(name, 0) + count
        return {name: count for name, count in counts.items() if name != "lapses"}

    def in_force(self) -> bool:
        """Whether the worker lives and its lease has never lapsed."""
        left = surviving(self.token)
        return bool(left) and not any(published(stat.pid).get("lapses") for stat in left)


def published(pid: int) -> dict[str, int]:
    """What a worker has published last; empty when it is gone or publishes nothing."""
    path = f"/proc/{pid}/fd/{COUNTERS_FD}"
    try:
        if not os.readlink(path).startswith(f"/memfd:{COUNTERS_NAME}"):
            return {}
        with open(path, "rb") as file:
            found: dict[str, int] = json.loads(file.read() or b"{}")
    except (OSError, ValueError):
        return {}
    return found
