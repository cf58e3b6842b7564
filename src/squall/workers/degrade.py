"""Makes a function of one Go process begin late, by a busy wait in the kernel, and records how long everything took.

The probe at the entry sees where the function was called from; where it returns to, a second one is put, so that the
time that the function took is known without touching the stack.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import SquallError
from squall.kernel import proc, process_memory
from squall.kernel.bpf import Lifecycle, UprobeHook
from squall.kernel.go_process import file_offset
from squall.kernel.own import be_on_time
from squall.workers.holding import Lease, hold, seed
from squall.workers.latencies import Histograms
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["BOUNDED", "LOOPED", "SHARE_ALWAYS", "Config", "main"]

LOOPED, BOUNDED = "enter_looped", "enter_bounded"
"""The programs for the entry: with the kernel's own loop, and without."""
SHARE_ALWAYS = 0xFFFFFFFF
_SETTING = struct.Struct("<QII")
_ZERO = struct.pack("<I", 0)
_CALLS, _DELAYED, _CUT_SHORT = 0, 1, 2
_WATCHED = b"\x02"
_TABLE_S = 1.0
_CALLERS_MOST = 16


class Config(NamedTuple):
    """Wait `delay_ns` in this share of the calls of the function at `offset` of the process's program.

    `goroutines`: r14 holds the goroutine, so that what a call took can be measured.
    """

    pid: int
    start_ticks: int
    name: str
    function: str
    offset: int
    program: str
    goroutines: bool
    delay_ns: int
    share: int
    seed: int


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_on_time()
    hold(line, _Degraded(Config(**data)))


class _Degraded:
    """The programs at the function's entry and wherever it returns to."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._path = f"/proc/{config.pid}/exe"
        self._process = proc.open_process(config.pid, config.start_ticks)
        if self._process is None:
            raise Refused(f"{config.name} (pid {config.pid}) has ended")
        self._programs = Lifecycle("degrade", (config.program, "leave"))
        try:
            self._inode = os.stat(self._path).st_ino
            self._programs.load()
            seed(self._programs.collection, config.seed)
            self.become(config._asdict())
            self._programs.attach([self._hook(config.program, config.offset)])
        except (OSError, SquallError) as error:
            self.close()
            raise Refused(f"{config.function} of {config.name} (pid {config.pid}): {error}") from error
        collection = self._programs.collection
        self._lease = Lease(collection)
        self._histograms = Histograms(
            collection.map("took"), collection.map("longest"), ("injected", "handled", "between")
        )
        self._table: Mapping[str, int] = {}
        self._table_due = 0.0
        self._seen: set[bytes] = set()

    def _hook(self, program: str, offset: int) -> UprobeHook:
        return UprobeHook(program, self._path, offset, self._config.pid)

    def renew(self) -> None:
        self._lease.renew()
        if self._config.goroutines and len(self._seen) < _CALLERS_MOST:
            self._follow_callers()

    def _follow_callers(self) -> None:
        """Put a probe where the function returns to, for callers that were not seen before."""
        fresh = set(self._programs.collection.map("callers")) - self._seen
        if not fresh:
            return
        self._seen |= fresh
        with contextlib.suppress(OSError):  # it is about to end
            mappings = process_memory.mappings(self._config.pid)
            for caller in fresh:
                offset = file_offset(mappings, self._inode, struct.unpack("<Q", caller)[0])
                if offset is not None:
                    with contextlib.suppress(SquallError):  # then only what these calls took is not known
                        self._programs.attach([self._hook("leave", offset)])
                        self._programs.adjust("callers", caller, _WATCHED)

    def counts(self) -> Mapping[str, int]:
        counters = self._programs.collection.map("counters")
        now = time.monotonic()
        if now >= self._table_due:
            self._table, self._table_due = self._histograms.read(), now + _TABLE_S
        delayed = counters.total(_DELAYED)
        return {
            "delayed": delayed,
            "missed": counters.total(_CALLS) - delayed,
            "cut_short": counters.total(_CUT_SHORT),
            "lapses": self._lease.lapses,
            **self._table,
        }

    def become(self, config: Mapping[str, Any]) -> None:
        new = Config(**config)
        value = _SETTING.pack(new.delay_ns, new.share, new.goroutines)
        self._programs.adjust("setting", _ZERO, value)
        self._config = new

    def close(self) -> None:
        self._programs.close()
        if self._process is not None:
            os.close(self._process)
            self._process = None
