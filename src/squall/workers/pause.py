"""Stops a process and lets it go again, for a part of each period."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.kernel import proc
from squall.kernel.own import be_named
from squall.workers.lifeline import Lifeline, Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STOPS", "Config", "main"]

STOPS = "stops: "
"""The worker's name in the kernel, followed by how often it has stopped the process."""


class Config(NamedTuple):
    """Stop exactly this process for `stopped_ns` in every `every_ns`."""

    pid: int
    start_ticks: int
    name: str
    stopped_ns: int
    every_ns: int


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    cycle = Config(**data)
    fd = proc.open_process(cycle.pid, cycle.start_ticks)
    if fd is None:
        raise Refused(f"{cycle.name} (pid {cycle.pid}) has ended")
    try:
        signal.pidfd_send_signal(fd, 0)
    except PermissionError as error:
        raise Refused(f"not permitted to stop {cycle.name} (pid {cycle.pid}): run as its user or as root") from error
    stopper = _Stopper(fd)
    try:
        line.ready()
        while True:
            cycle = _keep(line, stopper, cycle)
    finally:
        stopper.go()
        os.close(fd)


def _keep(line: Lifeline, stopper: _Stopper, cycle: Config) -> Config:
    """Keep this duty cycle until there is another one, which is returned.

    The times of all stops and goes are fixed when it begins, so that nothing adds up; one that is already over when its
    turn comes (this process had no CPU) is left out. When the target has ended the cycle runs on with nothing to hit.
    """
    origin, number = time.monotonic_ns(), 0
    while True:
        stop, go = origin + number * cycle.every_ns, origin + number * cycle.every_ns + cycle.stopped_ns
        new = _wait_until(line, stop)
        if new is None and time.monotonic_ns() < go:
            stopper.stop()
            new = _wait_until(line, go)
            stopper.go()
        if new is not None:
            return new
        number = max(number + 1, (time.monotonic_ns() - origin) // cycle.every_ns)


def _wait_until(line: Lifeline, when_ns: int) -> Config | None:
    while True:
        left = when_ns - time.monotonic_ns()
        data = line.wait(max(0, left) / 1e9)
        if data is not None:
            return Config(**data)
        if left <= 0:
            return None


class _Stopper:
    """Stops exactly this process, lets it go, and counts."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stops = 0
        be_named(f"{STOPS}0")

    def stop(self) -> None:
        """Stop it, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGSTOP)
            self._stops = (self._stops + 1) % 100_000_000  # a name has 15 characters
            be_named(f"{STOPS}{self._stops}")

    def go(self) -> None:
        """Let it go, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGCONT)
