"""A runtime probe sees goroutines that wait, collections, late timers and a growing heap; and how long a loop is away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from squall.probes.runtime import RuntimeProbe
from squall.probes.spec import Probe
from tests.programs.build import c_program, go_program
from tests.specimens import started, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
PROGRAMS = Path(__file__).resolve().parents[1] / "programs"


class Told:
    """A program that does what a line on its standard input says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.first = self._line()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        assert self._line() == "done"


@contextmanager
def told(*argv: str | Path) -> Iterator[Told]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Told(process)
        finally:
            process.kill()


class Watched:
    """A probe that is asked now and then, from one loop."""

    def __init__(self, **query: object) -> None:
        self.probe = RuntimeProbe(Probe.model_validate({"name": "rt", "runtime": query, "timeout": "30s"}))
        self.runner = asyncio.Runner()

    def take(self) -> dict[str, float]:
        request, *gauges = self.runner.run(self.probe.sample())
        assert request.outcome == "ok", self.probe.last_failure
        return {gauge.series.removeprefix("rt."): gauge.value for gauge in gauges}

    def fails(self) -> str:
        request, *_ = self.runner.run(self.probe.sample())
        assert request.outcome == "error"
        return self.probe.last_failure


@contextmanager
def watched(**query: object) -> Iterator[Watched]:
    one = Watched(**query)
    try:
        yield one
    finally:
        one.runner.run(one.probe.close())
        one.runner.close()


@pytest.mark.parametrize("flags", [(), ("-ldflags=-s -w",)], ids=["symbols", "stripped"])
@pytest.mark.parametrize("how", ["sleep", "chan", "mutex"])
def test_goroutines_that_wait_long_are_counted_and_others_are_not(how: str, flags: tuple[str, ...]) -> None:
    with told(go_program("goroutines", flags=flags)) as target, watched(pid=target.pid) as runtime:
        first = runtime.take()
        assert "parked" not in first, "there is no last sample yet"
        target.do(f"park 7 150 {how}")
        target.do(f"park 3 50 {how}")
        seen = runtime.take()
        assert seen["parked"] == 7
        assert runtime.take()["parked"] == 0, "idle network polling and the runtime's own goroutines are no waits"
        assert ("idlePs" in seen) == (not flags), "a stripped program does not say where its processors are"


def test_collections_of_a_go_program_are_counted() -> None:
    with told(go_program("goroutines")) as target, watched(pid=target.pid) as runtime:
        runtime.take()
        for _ in range(3):
            target.do("gc")
        assert runtime.take()["gc"] == 3


def test_the_heap_of_a_leaking_go_service_grows_and_says_where() -> None:
    with (
        told(go_program("goroutines")) as target,
        watched(pid=target.pid, pprof=f"http://{target.first}/debug/pprof/heap") as runtime,
    ):
        before = runtime.take()["heap"]
        for _ in range(8):
            target.do("leak 4000000")
        target.do("gc")  # a profile is as of the latest collection
        target.do("gc")
        grown = runtime.take()["heap"] - before
        assert 16e6 < grown < 64e6
        assert runtime.probe.growing.startswith("main.leak (+")


def test_what_is_no_profile_is_said() -> None:
    with (
        told(go_program("goroutines")) as target,
        watched(pid=target.pid, pprof=f"http://{target.first}/debug/pprof/allocs?debug=1") as runtime,
    ):
        assert "not a profile" in runtime.fails()


def test_an_event_loop_that_is_away_is_seen() -> None:
    with told(sys.executable, PROGRAMS / "loop.py") as target, watched(pid=target.pid) as runtime:
        runtime.take()
        target.do("rest 100")
        assert runtime.take()["loopLagMs"] < 80
        target.do("block 120")
        target.do("rest 1")  # the turn is over when the loop looks again
        assert 115 < runtime.take()["loopLagMs"] < 2000


def test_a_process_that_is_gone_fails_the_sample_and_its_successor_is_watched(tmp_path: Path) -> None:
    script = tmp_path / "watched-loop.py"
    script.write_text((PROGRAMS / "loop.py").read_text())
    with watched(command="watched-loop.py") as runtime:
        with told(sys.executable, script) as target:
            runtime.take()
            token = runtime.probe._watch._token  # type: ignore[union-attr]  # it watches
            assert surviving(token)
            assert target.pid
        assert "watched-loop.py" in runtime.fails()
        wait_for(lambda: not surviving(token), "its worker has ended")
        with told(sys.executable, script):
            runtime.take()


def test_a_program_without_a_runtime_that_is_known_is_refused_with_the_reason() -> None:
    with started(str(c_program("idle", flags=("-static",)))) as target, watched(pid=target.pid) as runtime:
        wait_for(lambda: Path(f"/proc/{target.pid}/exe").readlink().name.startswith("idle"), "it runs")
        assert "neither a Go program nor" in runtime.fails()
