"""Burns a share of a core in each of several processes.

General layout: the parent waits on the life line and stays outside the target's cgroups, so that no quota slows its
end; each child is put into them, then burns the share that it reads from memory shared with the parent, period by
period, by its own CPU clock. A child whose parent is gone ends within a period.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from squall.kernel.own import be_named
from squall.workers.lifeline import Lifeline, Refused, enter, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Config", "main"]

_PERIOD_NS = 20_000_000
_CATCH_UP_NS = _PERIOD_NS
"""What was missed because others had the core is made up for by at most this much; what is missed longer is lost."""
_LOOK_S = 0.25
"""How often the parent looks whether its children live."""
_REAP_S = 1.0


class Config(NamedTuple):
    """`load`: the share of a core, 0..1, that each of the `workers` burns."""

    load: float
    workers: int = 1
    cgroups: tuple[str, ...] = ()


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_named("squall-cpu")
    crew = _Crew()
    try:
        crew.become(Config(**data))
        line.ready()
        while crew.complete():
            new = line.wait(_LOOK_S)
            if new is not None:
                crew.become(Config(**new))
        raise Refused("a process that burns CPU was ended by somebody else")
    finally:
        crew.end()


class _Crew:
    """The processes that burn."""

    def __init__(self) -> None:
        self._load = mmap.mmap(-1, mmap.PAGESIZE)
        self._pids: list[int] = []

    def become(self, config: Config) -> None:
        """Burn this share in so many processes; those that are there already go on without a gap."""
        self._load[:8] = struct.pack("d", config.load)
        while len(self._pids) > config.workers:
            self._end_one(self._pids.pop())
        while len(self._pids) < config.workers:
            self._start_one(config.cgroups)

    def _start_one(self, folders: Sequence[str]) -> None:
        parent, (gate, opener) = os.getpid(), os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_a_child(parent, gate, opener, self._load)
        os.close(gate)
        self._pids.append(pid)
        try:
            enter(folders, pid)
            os.write(opener, b"!")
        finally:
            os.close(opener)

    def complete(self) -> bool:
        """Whether all of them live; those that were ended here are reaped."""
        while self._pids and (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)) is not None:
            if ended.si_pid in self._pids:
                self._pids.remove(ended.si_pid)
                return False
        return True

    def _end_one(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)  # not reaped yet, so the pid is still its own

    def end(self) -> None:
        """End and reap them all."""
        for pid in self._pids:
            self._end_one(pid)
        deadline = time.monotonic() + _REAP_S
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.001)


def _be_a_child(parent: int, gate: int, opener: int, load: mmap.mmap) -> NoReturn:
    """Wait at the gate until the parent has put this process into the cgroups, then burn as long as the parent lives."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.close(opener)
        os.close(0)
        if os.read(gate, 1):
            _burn(parent, load)
    finally:
        os._exit(0)


def _burn(parent: int, load: mmap.mmap) -> None:
    carried, tick = 0, time.monotonic_ns()
    while os.getppid() == parent:
        share: float = struct.unpack("d", load[:8])[0]
        tick += _PERIOD_NS
        owed = carried + int(share * _PERIOD_NS)
        carried = min(owed - _spin(owed, tick), _CATCH_UP_NS)
        now = time.monotonic_ns()
        if now > tick + _PERIOD_NS:  # this machine stood still, or others had the core
            tick = now
        elif now < tick:
            time.sleep((tick - now) / 1e9)


def _spin(amount_ns: int, until_ns: int) -> int:
    """Use so much CPU time, or as much as there is until then (by the monotonic clock); returns what was used."""
    begin, word, used = time.process_time_ns(), 1, 0
    while used < amount_ns and time.monotonic_ns() < until_ns:
        for _ in range(400):
            word = (word * 0x5DEECE66D + 0xB) & 0xFFFF_FFFF_FFFF
        used = time.process_time_ns() - begin
    return used
