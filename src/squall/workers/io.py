"""Makes files fail for chosen processes, or for a cgroup, by programs where the kernel asks whether it may use them."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import SquallError
from squall.kernel import proc
from squall.kernel.bpf import Lifecycle, TracingHook
from squall.kernel.own import be_named
from squall.workers.holding import Lease, hold, seed
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["CALLS", "PATHS_MOST", "PATH_MOST", "Config", "main", "programs"]

CALLS = ("open", "read", "write", "stat")
"""In the order of their bits in io.bpf.c."""
_PROGRAMS = {"open": "opens", "read": "uses", "write": "uses", "stat": "looks"}
PATHS_MOST, PATH_MOST = 4, 250
_ZERO = struct.pack("<I", 0)
_CALLS, _HITS = 0, 1


class Config(NamedTuple):
    """Fail these calls with `error` (an errno), `share` of 2^32 of them, `times` at most (0: no end).

    `cgroup` is a v2 folder, or None for `processes` (pid and start time), `descendants`: and all below them, as they
    come. `paths` are whole folders or files.
    """

    calls: tuple[str, ...]
    error: int
    share: int
    times: int
    paths: tuple[str, ...]
    cgroup: str | None
    processes: tuple[tuple[int, int], ...]
    descendants: bool
    seed: int


def programs(calls: tuple[str, ...], *, by_cgroup: bool) -> tuple[str, ...]:
    """The programs of io.bpf.c that these calls need."""
    who = "cgroup" if by_cgroup else "process"
    return tuple(sorted({f"{who}_{_PROGRAMS[call]}" for call in calls}))


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_named("squall-io")
    config = Config(**data)
    try:
        held = _Failing(config)
    except (OSError, SquallError) as error:
        raise Refused(str(error)) from error
    hold(line, held)


class _Failing:
    """The programs, and whom they hit."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._programs = Lifecycle("io", programs(CALLS, by_cgroup=config.cgroup is not None))
        try:
            self._programs.load()
            seed(self._programs.collection, config.seed)
            self._take(config)
            self._lease = Lease(self._programs.collection)
        except BaseException:
            self._programs.close()
            raise

    def _take(self, config: Config) -> None:
        """Whom and what first, then the programs that it needs; those that it needs no more last."""
        self._config = config
        self._hit_whom()
        self._write(config)
        wanted = [TracingHook(name) for name in programs(config.calls, by_cgroup=config.cgroup is not None)]
        self._programs.attach(wanted)
        self._programs.detach(set(self._programs.hooks) - set(wanted))

    def _hit_whom(self) -> None:
        """Note the processes, those too that came since; what was forked from them stays, whoever its parent is now."""
        known = self._programs.collection.map("processes")
        wanted = {struct.pack("<I", pid): ticks for pid, ticks in self._config.processes}
        if self._config.descendants:
            for pid, ticks in self._config.processes:
                own = proc.read_stat(pid)
                below = proc.descendants(pid) if own is not None and own.start_ticks == ticks else []
                stats = (proc.read_stat(one) for one in below)
                wanted |= {struct.pack("<I", stat.pid): stat.start_ticks for stat in stats if stat is not None}
        for key, ticks in wanted.items():
            known[key] = struct.pack("<Q", ticks)
        for key in set(known) - set(wanted):
            stat = proc.read_stat(struct.unpack("<I", key)[0])
            if not self._config.descendants or stat is None or stat.gone:
                del known[key]

    def _write(self, config: Config) -> None:
        bits = sum(1 << CALLS.index(call) for call in config.calls)
        cgroup = os.stat(config.cgroup).st_ino if config.cgroup is not None else 0
        head = struct.pack("<IiIIQQ", bits, -config.error, config.share, len(config.paths), config.times, cgroup)
        patterns = b"".join(_pattern(path) for path in config.paths)
        empty = bytes(_PATTERN_SIZE * (PATHS_MOST - len(config.paths)))
        self._programs.adjust("rules", _ZERO, head + patterns + empty)
        self._programs.adjust("spent", _ZERO, bytes(8))

    def renew(self) -> None:
        self._lease.renew()
        if self._config.descendants:
            self._hit_whom()

    def counts(self) -> Mapping[str, int]:
        counters = self._programs.collection.map("counters")
        return {"calls": counters.total(_CALLS), "hits": counters.total(_HITS), "lapses": self._lease.lapses}

    def become(self, config: Mapping[str, Any]) -> None:
        self._take(Config(**config))

    def close(self) -> None:
        self._programs.close()


_PATTERN_SIZE = 520


def _pattern(path: str) -> bytes:
    """A `struct pattern`: the path's bytes, a mask of the same length, the length; "/" has length 0 and fits all."""
    text = os.fsencode(path.rstrip("/"))
    return text.ljust(256, b"\0") + (b"\xff" * len(text)).ljust(256, b"\0") + struct.pack("<II", len(text), 0)
