"""So many threads at most for what blocks and must not hold up its caller; they are daemons and end when idle.

A thread cannot be ended from outside. What was begun goes on to its end, also when nobody waits for it any more, and takes
up its worker until then: that is what the bound is for. At the interpreter's exit a worker is not waited for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

from squall_resilience.forking import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Workers"]

IDLE_S: Final = 10.0
logger = logging.getLogger("squall_resilience")


class Workers:
    """Runs jobs, each with a copy of its giver's context, on at most `limit` threads; so many may wait."""

    def __init__(self, name: str, limit: int, waiting_max: int = 0) -> None:
        self.name = name
        self.limit = limit
        self.waiting_max = waiting_max
        self.lock = threading.RLock()
        self._jobs: deque[Callable[[], object]] = deque()
        self._free: list[_Worker] = []
        self._count = 0
        survive_forks(self)

    @property
    def count(self) -> int:
        """How many threads there are."""
        return self._count

    def give(self, job: Callable[[], object]) -> bool:
        """Have this done, now or when a worker is free; False when as many wait as may. Jobs raise nothing."""
        context = copy_context()

        def within() -> object:
            return context.run(job)

        with self.lock:
            if self._free:
                self._free.pop().take(within)
                return True
            if self._count < self.limit:
                self._count += 1
                try:
                    _Worker(self, within).start()
                except BaseException:
                    self._count -= 1
                    raise
                return True
            if len(self._jobs) >= self.waiting_max:
                return False
            self._jobs.append(within)
            return True

    def next_for(self, worker: _Worker) -> Callable[[], object] | None:
        """A waiting job for a worker that is done with one; None: it is free now."""
        with self.lock:
            if self._jobs and self._count <= self.limit:
                return self._jobs.popleft()
            self._free.append(worker)
            return None

    def leave(self, worker: _Worker) -> bool:
        """A worker that nobody needed for a while goes; False when it has just been given a job."""
        with self.lock:
            if worker not in self._free:
                return False
            self._free.remove(worker)
            self._count -= 1
            return True

    def forked(self) -> None:
        """A child has none of its parent's threads, nor their jobs."""
        self._jobs.clear()
        self._free.clear()
        self._count = 0


class _Worker(threading.Thread):
    def __init__(self, of: Workers, job: Callable[[], object]) -> None:
        super().__init__(name=f"{of.name} worker", daemon=True)
        self._of = of
        self._job: Callable[[], object] | None = job
        self._given = threading.Semaphore(1)

    def take(self, job: Callable[[], object]) -> None:
        """Only called for one that is free, so there is no other job that this could replace."""
        self._job = job
        self._given.release()

    def run(self) -> None:
        while True:
            if not self._given.acquire(timeout=IDLE_S):
                if self._of.leave(self):
                    return
                self._given.acquire()  # it was given a job just now
            job, self._job = self._job, None
            while job is not None:
                try:
                    job()
                except BaseException:
                    logger.exception("a job of %r raised", self._of.name)
                job = self._of.next_for(self)
