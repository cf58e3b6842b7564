"""The world of one cell: a target, a state folder, a folder to fill, and what must be true of them afterwards."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.kernel import proc
from squall.recovery import read_journal, recover_orphans
from squall.recovery.state import State
from tests.crash.scenarios import document

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PROMPT_S = 3.0
"""What is promised is 1 s on a machine that is not busy; docs/benchmarks holds the figures, a test only this bound."""


@dataclass
class World:
    """One target and one state folder, used by cell after cell: each must leave it as it found it."""

    folder: Path
    target: subprocess.Popen[bytes]
    listen: int
    files_before: tuple[int, int]
    slowest_ms: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    def pulse(self) -> tuple[int, int, int]:
        ticks, opened, port = struct.unpack("<qqq", (self.folder / "pulse").read_bytes())
        return ticks, opened, port

    def order(self, scenario: str, **given: Any) -> dict[str, Any]:
        spec = document(
            scenario, pid=self.target.pid, port=self.pulse()[2], listen=self.listen, folder=str(self.folder / "disk")
        )
        note = self.folder / "note"
        note.write_bytes(b"")
        return {"state": str(self.state.path), "spec": spec, "victim": "none", "at": 0, "note": str(note), "points": str(self.folder / "points"), **given}

    def start(self, order: dict[str, Any]) -> subprocess.Popen[bytes]:
        with (self.folder / "engine.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(HERE / "engine.py"), json.dumps(order)], stdout=log, stderr=log, process_group=0
            )

    def run(self, order: dict[str, Any]) -> int:
        """Until the engine has ended. One that was stopped before it had a guardian has touched nothing: it is ended here."""
        engine = self.start(order)
        deadline = time.monotonic() + 60
        while engine.poll() is None:
            if time.monotonic() > deadline:
                engine.kill()
                engine.wait()
                raise AssertionError(f"the engine did not end: {order}")
            stat = proc.read_stat(engine.pid)
            if stat is not None and stat.stopped and not proc.children_of(engine.pid):
                assert not any(read_journal(run.journal).entries for run in self.state.open_runs())
                engine.kill()
                engine.wait()
            time.sleep(0.005)
        return engine.returncode

    def points(self, scenario: str) -> list[str]:
        """The names of all points of a run that nobody kills."""
        order = self.order(scenario)
        assert self.run(order) in (100, 101, 106), (self.folder / "engine.log").read_text()
        return Path(order["points"]).read_text().splitlines()

    def died_ns(self) -> int | None:
        lines = (self.folder / "note").read_text().splitlines()
        return int(lines[-1].split()[0]) if lines else None

    # --- what must be true afterwards

    def expect_normal(self, *, recover: bool = False) -> None:
        """Everything back to normal soon: by itself, or (both dead) when the next command looks."""
        died = self.died_ns() or time.monotonic_ns()
        if recover:
            self._wait(lambda: all(_leases_ended(run.journal) for run in self.state.open_runs()), "a lease goes on")
        if recover or all(not read_journal(run.journal).entries for run in self.state.open_runs()):
            # Both are dead, or it died before it had a guardian and so before it touched anything: the next command
            # finds the marker. A guardian that was just killed may hold the lock for a moment.
            self._wait(self._recovered, "a run is still open")
        self._wait(lambda: not self.state.open_runs(), "a run is still open")
        self._wait(self.target_is_well, "the target is not back to normal")
        self._wait(lambda: not self.strays(), "processes of Squall are left")
        took_ms = (time.monotonic_ns() - died) / 1e6
        self.slowest_ms["recover" if recover else "guardian"] = max(took_ms, self.slowest_ms.get("recover" if recover else "guardian", 0))
        assert not self.port_is_taken(), "the route's port is still taken"
        assert list((self.folder / "disk").iterdir()) == [], "files are left"
        assert resource.prlimit(self.target.pid, resource.RLIMIT_NOFILE) == self.files_before
        assert [found for found in recover_orphans(self.state) if found.reverted or found.residue] == []
        assert not list(self.state.runs.glob("*/*.sock")), "control sockets are left"

    def _recovered(self) -> bool:
        for found in recover_orphans(self.state):
            assert found.residue == []
        return not self.state.open_runs()

    def target_is_well(self) -> bool:
        """It ticks, and it can open files."""
        before = self.pulse()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            now = self.pulse()
            if now[0] > before[0] + 2 and now[1] > before[1] + 1:
                return True
            time.sleep(0.002)
        return False

    def strays(self) -> list[str]:
        """Processes that carry the mark of one of this world's runs."""
        runs = {run.id for run in self.state.all_runs()}
        return [" ".join(proc.command_line(pid)) for pid in proc.pids() if proc.environment_value(pid, "SQUALL_RUN") in runs]

    def port_is_taken(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.listen)) == 0

    def _wait(self, condition: Any, otherwise: str) -> None:
        deadline = time.monotonic() + PROMPT_S
        while not condition():
            log = (self.folder / "engine.log").read_text()
            guardians = "".join(path.read_text() for path in self.state.runs.glob("*/guardian.log"))
            assert time.monotonic() < deadline, f"{otherwise}: {self.strays()}\n{log}\n{guardians}"
            time.sleep(0.005)


def _leases_ended(journal: Path) -> bool:
    """Whether every step with a lease has ended by itself."""
    view = read_journal(journal)
    return all(entry.action.verify().normal for entry in view.open_entries if entry.action.recoverability == "lease")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path
    (folder / "pulse").write_bytes(bytes(24))
    (folder / "disk").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = free.getsockname()[1]
    # SIGUSR1 is what the `signal` scenario sends: it must be harmless.
    target = subprocess.Popen(
        [sys.executable, "-c", f"import signal,runpy,sys; signal.signal(signal.SIGUSR1, lambda *_: None); sys.argv=['target', {str(folder / 'pulse')!r}]; runpy.run_path({str(HERE / 'target.py')!r}, run_name='__main__')"],
    )  # fmt: skip
    deadline = time.monotonic() + 10
    while struct.unpack("<qqq", (folder / "pulse").read_bytes())[2] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    one = World(folder, target, listen, resource.prlimit(target.pid, resource.RLIMIT_NOFILE))
    one.state.create()
    yield one
    os.kill(target.pid, 18)  # SIGCONT: a stopped target could not be ended
    target.kill()
    target.wait()
    for name, slowest in sorted(one.slowest_ms.items()):
        print(f"slowest back to normal ({name}): {slowest:.0f} ms")  # noqa: T201 - pytest -s shows it
