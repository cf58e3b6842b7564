"""Skews the clocks of processes that carry the stub, for as long as it lives: it renews their lease.

The stub compares the lease with the monotonic clock at each read: when this worker is gone, however it ended, the
clocks are true within a second; when it ends in order, at once.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.kernel import proc
from squall.kernel.clock_stub import TRUE, Skew, StubMemory, token_of
from squall.kernel.own import be_first
from squall.workers.holding import LEASE_NS, RENEW_S, hold
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.workers.lifeline import Lifeline

__all__ = ["Config", "Stub", "main"]


class Stub(NamedTuple):
    """A stub in a process: the token of the step that put it there, and its address."""

    pid: int
    start_ticks: int
    token: str
    address: int


class Config(NamedTuple):
    """What the clocks (by the kernel's numbers) of these processes say; `forks`: also of what is forked from them."""

    stubs: tuple[Stub, ...]
    name: str
    offset_ns: int
    drift_ppm: float
    clocks: tuple[int, ...]
    forks: bool

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Config:
        """From its JSON form."""
        stubs = tuple(Stub(*one) for one in data["stubs"])
        return cls(**{**data, "stubs": stubs, "clocks": tuple(data["clocks"])})


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_first()
    hold(line, _Skewed(Config.read(data)))


class _Skewed:
    """The processes whose clocks are skewed, each by the memory of the program that it was."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._base_ns = time.time_ns()
        self._drifted_ns = 0
        self._until_ns = 0
        self._lapses = self._dropped = 0
        self._memories: dict[int, tuple[Stub, StubMemory]] = {}
        self._lock = threading.Lock()
        for stub in config.stubs:
            memory = _opened(stub)
            if memory is None:
                self.close()
                raise Refused(f"{config.name} (pid {stub.pid}) has ended, or has no stub in its vDSO")
            self._memories[stub.pid] = (stub, memory)
        if config.forks:  # beside the renewals, which must never wait: to look into a process can take its time
            threading.Thread(target=self._find_forks, daemon=True).start()

    def renew(self) -> None:
        """Let the clocks be skewed for another second."""
        with self._lock:
            now = time.monotonic_ns()
            if self._until_ns and now > self._until_ns:
                self._lapses += 1
            self._until_ns = now + LEASE_NS
            self._write(list(self._memories))

    def _write(self, pids: Sequence[int]) -> None:
        skew = Skew(
            self._until_ns, self._config.clocks, self._config.offset_ns + self._drifted_ns, self._base_ns,
            self._config.drift_ppm,
        )  # fmt: skip
        for pid in pids:
            stub, memory = self._memories[pid]
            if not memory.become(skew):
                del self._memories[pid]
                memory.close()
                self._dropped += stub in self._config.stubs and _lives(stub)

    def _find_forks(self) -> None:
        """Take in processes that were forked from ours: they began with a copy of the stub, and so of the lease."""
        stubs = {(one.address, one.token) for one in self._config.stubs}
        programs = {proc.executable(one.pid) for one in self._config.stubs}
        looked_at: set[int] = set()
        while True:
            pids = set(proc.pids())
            for pid in pids - looked_at - set(self._memories):
                stat = proc.read_stat(pid)
                if stat is not None and proc.executable(pid) in programs:
                    for address, token in stubs:
                        self._take(Stub(pid, stat.start_ticks, token, address))
            looked_at = pids
            time.sleep(RENEW_S)

    def _take(self, stub: Stub) -> None:
        memory = _opened(stub)
        if memory is not None:
            with self._lock:
                self._memories[stub.pid] = (stub, memory)
                self._write([stub.pid])

    def counts(self) -> Mapping[str, int]:
        """How many processes are skewed. An exec drops the skew of a process that lives on: that counts as a lapse."""
        return {"skewed": len(self._memories), "lapses": self._lapses + self._dropped}

    def become(self, data: Mapping[str, Any]) -> None:
        """Take another skew at once. What the drift has made so far stays: a clock does not jump when its rate changes."""
        new, now = Config.read(data), time.time_ns()
        with self._lock:
            if new.drift_ppm != self._config.drift_ppm:
                self._drifted_ns += round(self._config.drift_ppm * (now - self._base_ns) / 1_000_000)
                self._base_ns = now
            self._config = new._replace(stubs=self._config.stubs, forks=self._config.forks)
            self._write(list(self._memories))

    def close(self) -> None:
        """Make the clocks true."""
        with self._lock:
            for _, memory in self._memories.values():
                memory.become(TRUE)
                memory.close()
            self._memories.clear()


def _opened(stub: Stub) -> StubMemory | None:
    """The memory of exactly this process, None when it is gone or carries no such stub."""
    try:
        memory = StubMemory(stub.pid, stub.address)
    except OSError:
        return None
    stat = proc.read_stat(stub.pid)
    if stat is None or stat.start_ticks != stub.start_ticks or memory.token() != token_of(stub.token):
        memory.close()
        return None
    return memory


def _lives(stub: Stub) -> bool:
    stat = proc.read_stat(stub.pid)
    return stat is not None and stat.start_ticks == stub.start_ticks and not stat.gone
