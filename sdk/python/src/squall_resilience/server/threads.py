"""Threads that are kept for the next job, and one that looks after those who wait."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kept", "Lookout"]

IDLE_SECONDS = 10.0
"""How long a thread without a job stays."""


class Kept:
    """Runs each job in a thread at once: in one that is idle, the last one that became so, or in a new one.

    There is no bound here: whoever hands out the jobs bounds how many run. `run` raises RuntimeError when the system
    has no thread left.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[_Thread] = []
        self._number = 0

    def run(self, job: Callable[[], None]) -> None:
        """Run it in a thread of its own; it may not raise."""
        try:
            thread = self._idle.pop()  # one step: nobody else gets the same one
        except IndexError:
            self._number += 1
            thread = _Thread(self._idle)
            thread.jobs.put(job)
            threading.Thread(target=thread.work, name=f"{self._name}-{self._number}", daemon=True).start()
        else:
            thread.jobs.put(job)

    def end(self) -> None:
        """Let the idle threads end; the others end when they become idle and nobody takes them."""
        while self._idle:
            try:
                self._idle.pop().jobs.put(None)
            except IndexError:
                return

    def forked(self) -> None:
        """The idle threads are the parent's."""
        self._idle.clear()


class _Thread:
    def __init__(self, idle: list[_Thread]) -> None:
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = idle

    def work(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                try:
                    self._idle.remove(self)
                except ValueError:  # it was just taken: a job comes, or is there
                    job = self.jobs.get()
                else:
                    return
            if job is None:
                return
            job()
            del job  # what it holds is not kept while idle
            self._idle.append(self)


class Lookout:
    """Calls `look()` when the time that it last returned is over, in a thread that ends when it returns None."""

    def __init__(self, name: str, look: Callable[[], float | None]) -> None:
        self._name, self._look = name, look
        self._lock = threading.RLock()
        self._there = False

    def keep(self) -> None:
        """There is something to look after: see to it that the thread is there."""
        if not self._claim():
            return
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # no thread is left; those who wait are then looked after by whoever finishes
            self._there = False

    def _claim(self) -> bool:
        with self._lock:
            there, self._there = self._there, True
            return not there

    def _work(self) -> None:
        pause = threading.Event()  # never set
        while True:
            wait = self._look()
            if wait is None:
                self._there = False
                wait = self._look()  # something may have come before that was seen
                if wait is None or not self._claim():
                    return
            pause.wait(max(wait, 0.001))

    def forked(self) -> None:
        """The thread is the parent's."""
        self._lock = threading.RLock()
        self._there = False
