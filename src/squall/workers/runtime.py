"""Watches a language runtime from outside: the goroutines, timers and collections of Go, the event loop of Python.

Programs at the entries of the runtime's own functions count; nothing of the target is changed. Each question ("take" on
the life line) is answered in the memory file with what happened since the one before.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.kernel import proc, process_memory
from squall.kernel.bpf import BpfError, Lifecycle, UprobeHook
from squall.kernel.elf import Elf, ImageError
from squall.kernel.gosym import GoFunctions, version_of
from squall.workers.holding import Lease, hold
from squall.workers.lifeline import Lifeline, Refused, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from squall.kernel.bpf import Map
    from squall.kernel.elf import Symbol

__all__ = ["Config", "main"]

_COLLECTIONS, _WAITS, _LATE_TIMERS, _LOOPS = range(4)
_BUSY, _COLLECTING = range(2)
_CALLER, _TALLY = struct.Struct("<QQ"), struct.Struct("<QQQ")
_TIMER_DELAY_SINCE = (1, 23)
"""The Go release from which on a timer's function is told how late it is."""
_TIMER_FUNCTIONS = ("runtime.goroutineReady", "time.sendTime", "time.goFunc")
_UNSEEN_TIMERS = ("runtime.(*timer).maybeRunChan",)
"""Timers that nobody waited for are fed when somebody looks: they are late for no one."""
_IDLE = (
    "runtime.netpollblock", "runtime.bgsweep", "runtime.bgscavenge", "runtime.(*scavengerState).park",
    "runtime.(*scavengerState).sleep", "runtime.forcegchelper", "runtime.gcBgMarkWorker", "runtime.gcBgMarkWorker.func1",
    "runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups", "runtime.(*finalizerQueue).waitForWork",
    "runtime.(*cleanupQueue).dequeue", "runtime.gcMarkDone", "runtime.main",
)  # fmt: skip
"""Who waits because there is nothing to do: network polling, the runtime's own goroutines."""
_PROCESSORS_MOST = 4096
_P_IDLE = 0
_PYTHON_COLLECTORS = ("gc_collect_main", "_PyGC_Collect")


class Config(NamedTuple):
    """Watch exactly this process. Waits and delays are counted when they are longer than so many ns."""

    pid: int
    start_ticks: int
    name: str
    long_wait_ns: int
    late_timer_ns: int


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    config = Config(**data)
    stat = proc.read_stat(config.pid)
    if stat is None or stat.start_ticks != config.start_ticks:
        raise Refused(f"{config.name} (pid {config.pid}) has ended")
    try:
        hold(line, _Watched(config))
    except (BpfError, ImageError, OSError) as error:
        raise Refused(f"the runtime of {config.name} (pid {config.pid}) cannot be watched: {error}") from error


@dataclass(frozen=True, slots=True)
class _Span:
    """The code of one function, in the target's memory."""

    begin: int
    end: int


class _Watched:
    """The programs on one process, and what they have counted."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._image = f"/proc/{config.pid}/exe"
        self._idle: tuple[_Span, ...] = ()
        self._unseen: tuple[_Span, ...] = ()
        self._processors = 0
        """The address of runtime.allp in the target, 0 where it is not known."""
        self._before: dict[str, int] = {}
        self._answer: dict[str, int] = {}
        with Elf.open(self._image) as elf:
            hooks = tuple(self._go(elf) if elf.is_go else self._python(elf))
        self._life = Lifecycle("runtime", sorted({hook.program for hook in hooks}))
        try:
            self._life.load()
            wanted = struct.pack("<QQ", config.long_wait_ns, config.late_timer_ns)
            self._life.adjust("settings", struct.pack("<I", 0), wanted)
            self._lease = Lease(self._life.collection)
            self._life.attach(hooks)
        except BaseException:
            self._life.close()
            raise

    # ---- where

    def _go(self, elf: Elf) -> Iterator[UprobeHook]:
        functions = GoFunctions(elf)
        bias = self._bias(elf)
        places = {
            "goroutine_parks": "runtime.gopark",
            "goroutine_is_ready": "runtime.ready",
            "go_collects": "runtime.gcMarkTermination",
        }
        for program, name in places.items():
            offset = functions.offset(name)
            if offset is None:
                raise Refused(f"{self._config.name} is a Go program without {name}: of what release is it?")
            yield UprobeHook(program, self._image, offset, self._config.pid)
        if version_of(elf.go_version) >= _TIMER_DELAY_SINCE:
            for name in _TIMER_FUNCTIONS:
                offset = functions.offset(name)
                if offset is not None:
                    yield UprobeHook("timer_fires", self._image, offset, self._config.pid)
        self._idle = tuple(_spans(functions, _IDLE, bias))
        self._unseen = tuple(_spans(functions, _UNSEEN_TIMERS, bias))
        symbol = elf.symbol("runtime.allp")
        self._processors = symbol.address + bias if symbol is not None else 0

    def _python(self, elf: Elf) -> Iterator[UprobeHook]:
        found = False
        for path in self._mapped():
            with Elf.open(path) as image:
                looks, collects = image.symbol("epoll_wait"), _first(image, _PYTHON_COLLECTORS)
                if looks is not None:
                    found = True
                    offset = image.file_offset(looks.address)
                    yield UprobeHook("loop_looks", path, offset, self._config.pid)
                    yield UprobeHook("loop_works", path, offset, self._config.pid, returns=True)
                if collects is not None:
                    offset = image.file_offset(collects.address)
                    yield UprobeHook("python_collects", path, offset, self._config.pid)
                    yield UprobeHook("python_collected", path, offset, self._config.pid, returns=True)
        if not found:
            raise Refused(
                f"{elf.name} ({self._config.name}) is neither a Go program nor one that uses a C library's epoll_wait"
            )

    def _mapped(self) -> Iterator[str]:
        """The program, its C library and its interpreter's library, as files that can be opened from here."""
        yield self._image
        seen = set()
        for one in process_memory.mappings(self._config.pid):
            base = os.path.basename(one.name)
            if (
                one.inode not in seen
                and "x" in one.permissions
                and base.startswith(("libc.so", "libc-", "libpython", "ld-musl"))
            ):
                seen.add(one.inode)
                yield f"/proc/{self._config.pid}/root{one.name}"

    def _bias(self, elf: Elf) -> int:
        """How far from its own addresses the program was put into memory."""
        if not elf.position_independent:
            return 0
        info = os.stat(self._image)
        first = next(one for one in process_memory.mappings(self._config.pid) if one.inode == info.st_ino)
        return first.start - elf.address_of(first.offset)

    # ---- as holding asks

    def renew(self) -> None:
        """Renew the lease."""
        self._lease.renew()

    def counts(self) -> Mapping[str, int]:
        """The answer to the latest question."""
        return {**self._answer, "lapses": self._lease.lapses}

    def become(self, config: Mapping[str, Any]) -> None:
        """Answer a question: what has happened since the one before."""
        now = self._totals()
        since = {name: count - self._before.get(name, 0) for name, count in now.items()}
        self._before = now
        self._answer = {"taken": int(config["take"]), **since, **self._longest(), **self._state()}

    def close(self) -> None:
        """Take everything off."""
        self._life.close()

    # ---- what was counted

    def _totals(self) -> dict[str, int]:
        counters = self._life.collection.map("counters")
        totals = {"gc": counters.total(_COLLECTIONS)}
        if self._idle:
            totals["waits"] = counters.total(_WAITS)
            totals["parked"] = self._tallied("long_waits", self._idle)
            totals["late_timers"] = self._tallied("late_timers", self._unseen)
        else:
            totals["loops"] = counters.total(_LOOPS)
        return totals

    def _tallied(self, name: str, left_out: tuple[_Span, ...]) -> int:
        tallies = self._life.collection.map(name)
        return sum(
            _TALLY.unpack(tallies[key])[0]
            for key in tallies
            if not any(span.begin <= pc < span.end for pc in _CALLER.unpack(key) for span in left_out)
        )

    def _longest(self) -> dict[str, int]:
        """The longest turn of the event loop and the longest collection since the last question, in ns."""
        if self._idle:
            return {}
        tallies = self._life.collection.map("tallies")
        return {"lag_ns": _taken(tallies, _BUSY), "gc_pause_ns": _taken(tallies, _COLLECTING)}

    def _state(self) -> dict[str, int]:
        """How many of Go's processors are idle right now; nothing where they cannot be found."""
        if not self._processors:
            return {}
        pid = self._config.pid
        try:
            first, count = struct.unpack("<QQ", process_memory.read(pid, self._processors, 16))
            if not 0 < count <= _PROCESSORS_MOST:
                return {}
            places = struct.unpack(f"<{count}Q", process_memory.read(pid, first, 8 * count))
            states = [struct.unpack("<I", process_memory.read(pid, place + 4, 4))[0] for place in places]
        except OSError:
            return {}
        return {"processors": count, "idle_processors": states.count(_P_IDLE)}


def _taken(tallies: Map, which: int) -> int:
    """The longest of a tally, which begins anew. What is counted between the look and the write is lost."""
    key = struct.pack("<I", which)
    longest: int
    count, total, longest = _TALLY.unpack(tallies[key])
    tallies[key] = _TALLY.pack(count, total, 0)
    return longest


def _spans(functions: GoFunctions, names: tuple[str, ...], bias: int) -> Iterator[_Span]:
    for name in names:
        address = functions.address(name)
        if address is not None:
            yield _Span(address + bias, functions.end(address) + bias)


def _first(image: Elf, names: tuple[str, ...]) -> Symbol | None:
    return next((symbol for name in names if (symbol := image.symbol(name)) is not None), None)
