"""Programs that read the clock in four threads, in C, Go and Python, and a skew that is put on them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from squall.actions import ClockSkew, KernelWorker
from squall.actions.worker import end_workers
from squall.injectors import Host
from squall.injectors.clock import ClockInjector
from squall.kernel.clock_stub import CLOCKS
from squall.targets import ProcessIdentity
from tests import specimens
from tests.programs.build import c_program, go_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LANGUAGES", "Clock", "Reading", "Skewing", "clock", "needs_writable_code", "skewing"]

LANGUAGES = ("c", "go", "python")
SECOND = 1_000_000_000
ALL_CLOCKS = tuple(CLOCKS.values())
WITHIN_NS = 100_000_000
"""A busy machine answers late; the offsets of tests are far larger."""


capability = ClockInjector().capable(Host.look())
needs_writable_code = pytest.mark.skipif(capability.works is False, reason=capability.reason)
"""Some kernels let nobody but a debugger write over another process's code."""


class Reading(NamedTuple):
    """What the program says: its clocks in ns, how often a thread's wall clock leapt, how often it was read in all."""

    wall_ns: int
    monotonic_ns: int
    leaps: int
    reads: int


@dataclass
class Clock(specimens.Specimen):
    """A program that answers a line with a line."""

    def ask(self, word: str) -> str:
        """Its answer."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(word.encode() + b"\n")
        self.popen.stdin.flush()
        return self.line()

    def line(self) -> str:
        """The next line that it or a child of it says."""
        assert self.popen.stdout is not None
        if not select.select([self.popen.stdout], [], [], specimens.WAIT_SECONDS_MAX)[0]:
            pytest.fail("it does not answer")
        return self.popen.stdout.readline().decode().strip()

    def read(self) -> Reading:
        """Its clocks now."""
        return Reading(*map(int, self.ask("read").split()))

    def ahead_ns(self) -> int:
        """How far its wall clock is before the true one; too little by what an answer takes, which it is asked again for."""
        best: tuple[int, int] | None = None
        for _ in range(5):
            before = time.time_ns()
            wall = self.read().wall_ns
            after = time.time_ns()
            found = (after - before, wall - (before + after) // 2)
            best = min(best or found, found)
        assert best is not None
        return best[1]

    def is_ahead(self, ns: int, within_ns: int = WITHIN_NS) -> bool:
        """Whether its clock is so far before the true one."""
        return abs(self.ahead_ns() - ns) < within_ns

    def child_ahead_ns(self, pid: int) -> int:
        """The same of a child that it has forked."""
        os.kill(pid, signal.SIGUSR1)
        said, number = self.line().split()
        assert said == "child"
        return int(number) - time.time_ns()


def words(language: str) -> list[str]:
    """How the program in this language is started."""
    if language == "python":
        return [sys.executable, "-I", "-S", str(Path(__file__).parent / "programs" / "clock.py")]
    return [str(c_program("clock") if language == "c" else go_program("clock"))]


@contextmanager
def clock(language: str, rest_us: int = 5000) -> Iterator[Clock]:
    """The program in this language, reading its clock; it has ended well when the test leaves."""
    process = subprocess.Popen(
        [*words(language), str(rest_us)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    found = Clock(process)
    try:
        specimens.wait_for(lambda: found.read().reads > 0, "it reads its clock")
        yield found
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(specimens.WAIT_SECONDS_MAX) == 0, "it crashed"
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class Skewing:
    """A skew that is on: the stub's step and the worker's."""

    patch: ClockSkew
    worker: KernelWorker
    held: list[int]

    def become(self, offset_ns: int = 0, drift_ppm: float = 0.0, clocks: Sequence[int] = ALL_CLOCKS) -> None:
        """Change it."""
        new = worker_for(
            [self.patch], self.worker.token, offset_ns, drift_ppm, clocks, forks=self.worker.config["forks"]
        )
        assert self.worker.become(new, self.held)


def worker_for(
    patches: Sequence[ClockSkew], token: str, offset_ns: int, drift_ppm: float, clocks: Sequence[int], *, forks: bool
) -> KernelWorker:
    """The worker that holds the lease for these."""
    stubs = [[one.process.pid, one.process.start_ticks, one.token, one.stub] for one in patches]
    return KernelWorker(
        token, "squall.workers.clock", "skew a clock", {
            "stubs": stubs, "name": "it", "offset_ns": offset_ns, "drift_ppm": drift_ppm, "clocks": list(clocks),
            "forks": forks,
        },
    )  # fmt: skip


@contextmanager
def skewing(
    pid: int, offset_ns: int = 0, drift_ppm: float = 0.0, *, clocks: Sequence[int] = ALL_CLOCKS, forks: bool = False
) -> Iterator[Skewing]:
    """The clock of a process is skewed inside the block, as by the executor, and everything is normal after it."""
    token = f"test-{os.urandom(4).hex()}/0"
    patch = ClockSkew(f"{token}.{pid}", ProcessIdentity.of(pid), "it").prepare()
    with ExitStack() as stack:
        stack.callback(lambda: look_normal(patch))
        stack.callback(patch.undo)
        stack.callback(end_workers, token)
        patch.do()
        worker = worker_for([patch], token, offset_ns, drift_ppm, clocks, forks=forks)
        held = list(worker.do())
        stack.callback(lambda: [os.close(fd) for fd in held])
        yield Skewing(patch, worker, held)


def look_normal(patch: ClockSkew) -> None:
    """The test fails where the process is not back to normal."""
    look = patch.verify()
    if not look.normal:
        pytest.fail(look.detail)
