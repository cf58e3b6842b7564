"""Makes a method of one Go process panic, by a program in the kernel that writes the receiver's register."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import SquallError
from squall.kernel import proc
from squall.kernel.bpf import Lifecycle, UprobeHook
from squall.workers.holding import Lease, hold, seed
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["Config", "main"]

_SETTING = struct.Struct("<IIQ")
_ZERO = struct.pack("<I", 0)
_CALLS, _PANICS = 0, 1


class Config(NamedTuple):
    """This share of the calls of the method at `offset` of the process's program, `most` of them at most (0: all)."""

    pid: int
    start_ticks: int
    name: str
    function: str
    offset: int
    share: int
    most: int
    seed: int


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    hold(line, _Panicking(Config(**data)))


class _Panicking:
    """The program at the method's entry."""

    def __init__(self, config: Config) -> None:
        self._process = proc.open_process(config.pid, config.start_ticks)
        if self._process is None:
            raise Refused(f"{config.name} (pid {config.pid}) has ended")
        self._programs = Lifecycle("panic")
        try:
            self._programs.load()
            seed(self._programs.collection, config.seed)
            self.become(config._asdict())
            self._programs.attach([UprobeHook("nil_receiver", f"/proc/{config.pid}/exe", config.offset, config.pid)])
        except (OSError, SquallError) as error:
            self.close()
            raise Refused(f"{config.function} of {config.name} (pid {config.pid}): {error}") from error
        self._lease = Lease(self._programs.collection)

    def renew(self) -> None:
        self._lease.renew()

    def counts(self) -> Mapping[str, int]:
        counters = self._programs.collection.map("counters")
        calls, panics = counters.total(_CALLS), counters.total(_PANICS)
        return {"panics": panics, "missed": calls - panics, "lapses": self._lease.lapses}

    def become(self, config: Mapping[str, Any]) -> None:
        """Take a new share, and a new count, of which what has panicked already is a part."""
        new = Config(**config)
        collection = self._programs.collection
        used = collection.map("counters").total(_PANICS)
        tokens = collection.map("tokens")
        for key in list(tokens):
            del tokens[key]
        left = max(0, new.most - used)
        for token in range(left):
            tokens[struct.pack("<Q", token)] = b"\x01"
        self._programs.adjust("setting", _ZERO, _SETTING.pack(new.share, new.most > 0, 0))

    def close(self) -> None:
        self._programs.close()
        if self._process is not None:
            os.close(self._process)
            self._process = None
