"""Lets a stub in a Go process make receivers nil, for as long as it lives: it renews the stub's lease.

The stub compares the lease with the time stamp counter at each call: when this worker is gone, however it ended, every
call passes within a second; when it ends in order, at once.
"""

from __future__ import annotations

import contextlib
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import SquallError
from squall.kernel import proc, process_memory, receiver_stub, timestamp
from squall.kernel.own import be_on_time
from squall.workers.holding import LEASE_NS, hold
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["Config", "main"]


class Config(NamedTuple):
    """Which process, the token of the step that put the stub there; the share (of 2^32), how many at most (0: all)."""

    pid: int
    start_ticks: int
    name: str
    token: str
    function: str
    entry: int
    share: int
    most: int
    seed: int


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_on_time()
    try:
        hold(line, _Leased(Config(**data)))
    except (OSError, SquallError) as error:
        raise Refused(str(error)) from error


class _Leased:
    """The stub of one process, by the memory of the program that it was."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rate = timestamp.Rate()
        stat = proc.read_stat(config.pid)
        if stat is None or stat.start_ticks != config.start_ticks:
            raise Refused(f"{config.name} (pid {config.pid}) has ended")
        place = receiver_stub.placed(config.pid, config.entry)
        if place is None:
            raise Refused(f"{config.function} of {config.name} (pid {config.pid}) is not led to a stub")
        self._data = place.data
        self._counts = (0, 0)
        self._until_ns = self.lapses = 0
        self._gone = False
        data = receiver_stub.Data(self._token, 0, _share(config), _left(config.most, 0), config.seed & (1 << 64) - 1)
        if not self._ours():
            raise Refused(f"the stub in {config.name} (pid {config.pid}) is another run's")
        self._write(8, data.packed()[8:])

    @property
    def _token(self) -> bytes:
        return receiver_stub.token_of(self._config.token)

    def _ours(self) -> bool:
        """Whether the stub is still this step's: not after an exec."""
        with contextlib.suppress(OSError):
            return process_memory.read(self._config.pid, self._data, 8) == self._token
        return False

    def _write(self, at: int, value: bytes) -> None:
        process_memory.write(self._config.pid, self._data + at, value)

    def renew(self) -> None:
        if self._gone or not self._ours():
            self._gone = True  # it has ended, or become another program: there is nothing to renew
            return
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if self._until_ns and now > self._until_ns:
            self.lapses += 1
        self._until_ns = now + LEASE_NS
        with contextlib.suppress(OSError):
            self._write(receiver_stub.UNTIL_AT, struct.pack("<Q", self._rate.after(LEASE_NS)))

    def counts(self) -> Mapping[str, int]:
        if not self._gone:
            with contextlib.suppress(OSError):
                self._counts = receiver_stub.counts(self._config.pid, self._data)
        calls, panics = self._counts
        ended = proc.read_stat(self._config.pid) if self._gone else None
        told = {"panics": panics, "missed": calls - panics, "lapses": self.lapses}
        if self._gone and (ended is None or ended.gone or ended.start_ticks != self._config.start_ticks):
            told["ended"] = 1  # and its last counts with it: a panic that nobody recovers from is such an end
        return told

    def become(self, config: Mapping[str, Any]) -> None:
        new = Config(**config)
        with contextlib.suppress(OSError):
            self._write(receiver_stub.SHARE_AT, struct.pack("<Qq", _share(new), _left(new.most, self._counts[1])))
        self._config = new

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._ours():
                self._write(receiver_stub.UNTIL_AT, bytes(8))


def _share(config: Config) -> int:
    return receiver_stub.ALWAYS if config.share == receiver_stub.ALWAYS - 1 else config.share


def _left(most: int, used: int) -> int:
    return max(0, most - used) if most else receiver_stub.UNLIMITED
