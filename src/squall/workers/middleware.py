"""Drives the chaos middleware of a service: writes the faults that are on, and renews the lease under which they hold.

NAME.json and NAME.lease are the worker's for as long as it holds a lock on the latter. The lease is written over in
place, so that nobody who reads sees none; it is over the moment this worker ends, and within a second if it cannot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.kernel.own import be_named
from squall.targets.middleware import registrations
from squall.workers.holding import LEASE_NS, hold
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.targets.middleware import Live
    from squall.workers.lifeline import Lifeline

__all__ = ["Config", "left_of", "main", "remove_left"]

_MODE = 0o644
_OVER = bytes(8)
_VERSION = 1
_ROUNDS = 10


class Config(NamedTuple):
    """Switch this fault (as sdk/PROTOCOL.md has it) on in the middleware of this name, in this folder, for this run."""

    folder: str
    name: str
    run: str
    fault: dict[str, Any]


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_named("squall-chaos")
    try:
        held = _Driving(Config(**data))
    except OSError as error:
        raise Refused(f"{error.filename or data['folder']}: {error.strerror}") from error
    hold(line, held)


class _Driving:
    """The two files, and what the processes have counted since."""

    def __init__(self, config: Config) -> None:
        self._folder, self._name = Path(config.folder), config.name
        self._control, self._lease = self._folder / f"{config.name}.json", self._folder / f"{config.name}.lease"
        self._counter = "delayed" if config.fault["abort_status"] is None else "aborted"
        self._until_ns = 0
        self._lapses = 0
        self._first: dict[tuple[int, int], Live] = {}
        self._last: dict[tuple[int, int], Live] = {}
        self._fd = self._locked()
        try:
            for live in registrations(self._folder, self._name):
                self._first[live.key] = self._last[live.key] = live
            self._write(config)
        except BaseException:
            self.close()
            raise

    def _locked(self) -> int:
        """The lease's file, locked, and still the one of that name. Refused while another worker holds it."""
        for _ in range(_ROUNDS):
            fd = os.open(self._lease, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchmod(fd, _MODE)
                if _same(fd, self._lease):
                    return fd
            except BlockingIOError:
                os.close(fd)
                raise Refused(f"the middleware {self._name} is driven by {self._driver()} already") from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # who held it before has just removed it
        raise Refused(f"{self._lease} is removed again and again by somebody else")

    def _driver(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return f"run {json.loads(self._control.read_bytes())['run']}"
        return "another run"

    def _write(self, config: Config) -> None:
        """Replace the faults that are on, as a whole."""
        whole = {"version": _VERSION, "run": config.run, "faults": [config.fault]}
        aside = self._folder / f".{self._name}.json.{os.getpid()}"
        aside.unlink(missing_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            os.fchmod(fd, _MODE)
            os.write(fd, json.dumps(whole).encode())
        finally:
            os.close(fd)
        aside.rename(self._control)

    def renew(self) -> None:
        """Let the faults hold for another second; and look how often they have hit."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        there = _same(self._fd, self._lease)
        if (self._until_ns and now > self._until_ns) or not there:
            self._lapses += 1
        if not there:  # somebody removed it: what holds now is another file of that name, or none
            os.close(self._fd)
            self._fd = self._locked()
        self._until_ns = now + LEASE_NS
        os.pwrite(self._fd, self._until_ns.to_bytes(8, "little"), 0)
        self._look()

    def _look(self) -> None:
        for live in registrations(self._folder, self._name):
            if live.key not in self._first:  # it has come since: all that it counted is this worker's
                self._first[live.key] = replace(live, requests=0, delayed=0, aborted=0)
            self._last[live.key] = live

    def counts(self) -> dict[str, int]:
        """What every process that had the middleware has counted since this worker began; those that ended count on."""
        self._look()
        pairs = [(self._first[key], last) for key, last in self._last.items()]
        delayed = sum(last.delayed - first.delayed for first, last in pairs)
        aborted = sum(last.aborted - first.aborted for first, last in pairs)
        left = sum(last.requests - first.requests for first, last in pairs) - delayed - aborted
        hit = {self._counter: delayed + aborted}
        return {**hit, "left": max(0, left), "lapses": self._lapses}

    def become(self, config: Mapping[str, Any]) -> None:
        """Replace the fault; the middleware sees the old one or the new one, never none."""
        self._write(Config(**config))

    def close(self) -> None:
        """End the lease at once, and take both files away."""
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, _OVER, 0)
        for path in (self._control, self._lease):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(self._fd)


def left_of(folder: Path, name: str, run: str) -> Path | None:
    """The control file that a worker of this run has left behind, None where there is none or it is another run's."""
    control = folder / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        if json.loads(control.read_bytes())["run"] == run:
            return control
    return None


def remove_left(folder: Path, name: str, run: str) -> None:
    """Take away what a worker of this run has left, unless another drives this middleware now; harmless when there is nothing."""
    lease = folder / f"{name}.lease"
    try:
        fd = os.open(lease, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        fd = -1  # without a lease nobody drives it
    try:
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        control = left_of(folder, name, run)
        if control is not None:
            control.unlink(missing_ok=True)
            if fd >= 0 and _same(fd, lease):
                lease.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        if fd >= 0:
            os.close(fd)


def _same(fd: int, path: Path) -> bool:
    """Whether this is the file that has this name."""
    try:
        there, held = path.lstat(), os.fstat(fd)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
