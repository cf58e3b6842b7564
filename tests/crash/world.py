"""The world of one cell after the other: a target, a state folder, a folder to fill, and what must be true of them afterwards."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from squall.errors import CannotInject
from squall.faults.handlers import HTTP_ENTRY
from squall.kernel import clock_stub, proc, process_memory, vdso
from squall.kernel.go_process import find_function
from squall.recovery import read_journal, recover_orphans
from squall.recovery.state import RunFolder, State
from tests.crash.scenarios import SCENARIOS, UNIFIED, Place, Scenario
from tests.programs.build import go_program

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ended", "World"]

HERE = Path(__file__).parent
PROMPT_S = 5.0
"""What is promised is 1 s on a machine that is not busy; docs/benchmarks holds the figures, a test only this bound."""
CELL_S = 60.0
_APART = """
import fcntl, os, socket, struct
any_socket = socket.socket()
fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.set_inheritable(socket.create_server(("127.0.0.1", 0)).detach(), True)
os.execvp("sleep", ["sleep", "infinity"])
"""
"""Its loopback is up, and it listens on a port, which `sleep` keeps open and never answers on."""
WARM_S = 0.02
_RUN_FILES = {"journal.jsonl", "events.jsonl", "samples.bin", "experiment.yaml", "guardian.log", "spare"}


@dataclass(frozen=True)
class Ended:
    """How a cell's engine ended: its status (minus a signal), what it wrote, and the point at which somebody died."""

    status: int
    log: str
    point: str
    died_ns: int
    slow_ms: float = 0.0


@dataclass
class World:
    """One target and one state folder, used by cell after cell: each must leave it as it found it."""

    folder: Path
    number: int = 0
    disk_megabytes: int = 0
    """Above 0: the state folder is on a small file system of its own, in a mount namespace of its own."""
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    go: subprocess.Popen[bytes] | None = None
    cells: int = 0
    """How many there have been."""
    _points: dict[str, list[str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        (self.folder / "fill").mkdir()
        (self.folder / "disk").mkdir()
        (self.folder / "pulse").write_bytes(bytes(24))
        self.name = f"squall-crash-target-{os.getpid()}-{self.number}"
        shutil.copy(HERE / "target.py", self.folder / self.name)
        self.listen = _port_for_nobody_else()
        self.target = self._start_target()
        self.apart = self._start_apart()
        _wait_for(lambda: self.pulse()[2] != 0, "the target does not start", CELL_S)
        self.files_before = resource.prlimit(self.target.pid, resource.RLIMIT_NOFILE)
        self.pace = self._pace(0.1)
        self._start_zygote()
        self._there().create()
        self.mounts = self._mounts()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.close()
        self.zygote.stdout.close()
        self.zygote.wait(CELL_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.target.pid, signal.SIGCONT)  # a stopped target could not be ended
        for process in (one for one in (self.target, self.apart, self.go) if one is not None):
            process.kill()
            process.wait()
        if self.cgroup.is_dir():
            self.cgroup.rmdir()

    # --- what there is

    @property
    def _disk(self) -> Path:
        return self.folder / "disk"

    @property
    def state(self) -> State:
        """The state folder as seen from here."""
        return State(self._seen_here(self._there().path))

    def _there(self) -> State:
        """The state folder as the engine sees it."""
        return State(self._disk / "state")

    def _seen_here(self, path: Path) -> Path:
        if not self.disk_megabytes:
            return path
        return Path(f"/proc/{self.zygote.pid}/root") / path.relative_to("/")

    @property
    def cgroup(self) -> Path:
        """The engine's own cgroup, where a scenario asks for one."""
        return Path(UNIFIED) / f"squall-crash-{os.getpid()}-{self.number}"

    def _start_target(self) -> subprocess.Popen[bytes]:
        """It may be faulted before it has said its port."""
        words = [sys.executable, "-I", "-S", str(self.folder / self.name), str(self.folder / "pulse")]
        return subprocess.Popen(words)

    def _start_apart(self) -> subprocess.Popen[bytes] | None:
        """A process in a network namespace of its own; None where there may be none."""
        if os.geteuid() != 0:
            return None
        process = subprocess.Popen(["unshare", "--net", sys.executable, "-I", "-S", "-c", _APART])
        _wait_for(lambda: "sleep" in proc.command_line(process.pid)[:1], "it does not sleep", CELL_S)
        return process

    def _go_service(self) -> subprocess.Popen[bytes]:
        """A Go service, started when it is first asked for, and again when it has ended."""
        if self.go is None or self.go.poll() is not None:
            self.go = subprocess.Popen(
                [str(go_program("handlers")), "127.0.0.1:0", "net"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert self.go.stdout is not None
            assert self.go.stdout.readline().startswith(b"ready")
            self.go.stdout.close()
            self.go_entry = find_function(self.go.pid, HTTP_ENTRY).address
            self.go_code = process_memory.read(self.go.pid, self.go_entry, 16)
        return self.go

    def _go_is_well(self) -> bool:
        """Whether the Go service lives, does not stand still, and has its own code."""
        if self.go is None:
            return True
        stat = proc.read_stat(self.go.pid)
        own = process_memory.read(self.go.pid, self.go_entry, len(self.go_code)) == self.go_code
        return own and stat is not None and not stat.stopped and not stat.gone

    def _start_zygote(self) -> None:
        words = [sys.executable, str(HERE / "zygote.py")]
        if os.geteuid() == 0:  # in a mount namespace of its own: what is mounted there was mounted by Squall
            words = ["unshare", "--mount", *words]
        if self.disk_megabytes:
            words += [str(self._disk), str(self.disk_megabytes)]
        # Coverage measures nothing in here: what is killed could not say what it ran, and would only be slow.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        pipe = subprocess.PIPE
        self.zygote = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self._hear() == "ready"

    def _hear(self) -> str:
        assert self.zygote.stdout is not None
        line = self.zygote.stdout.readline()
        assert line, "the zygote ended"
        return line.strip()

    def _say(self, order: dict[str, Any]) -> None:
        assert self.zygote.stdin is not None
        self.zygote.stdin.write(json.dumps(order) + "\n")
        self.zygote.stdin.flush()

    def _mounts(self) -> list[str]:
        """What is mounted in the engine's namespace, as far as it can only be this world's doing."""
        lines = Path(f"/proc/{self.zygote.pid}/mountinfo").read_text().splitlines()
        return lines if os.geteuid() == 0 else [line for line in lines if str(self.folder) in line]

    def pulse(self) -> tuple[int, int, int]:
        """Ticks, files opened, port."""
        ticks, opened, port = struct.unpack("<qqq", (self.folder / "pulse").read_bytes())
        return ticks, opened, port

    def _pace(self, seconds: float) -> float:
        """How many ticks a second, and files opened, whichever is less."""
        before, began = self.pulse(), time.monotonic()
        time.sleep(seconds)
        now, took = self.pulse(), time.monotonic() - began
        return min(now[0] - before[0], now[1] - before[1]) / took

    # --- a cell

    def points(self, scenario: str) -> list[str]:
        """The names of all points of a run that nobody kills."""
        if scenario not in self._points:
            ended = self.run(scenario, death="none")
            assert ended.status in (100, 101, 106), (scenario, ended)
            self._points[scenario] = (self.folder / "points").read_text().splitlines()
        return self._points[scenario]

    def run(self, scenario: str, *, death: str, at: int = 0, spec: dict[str, Any] | None = None, **given: Any) -> Ended:
        """Run one experiment whose engine (or whoever) dies at its n-th change; returns when the engine has ended."""
        chosen = SCENARIOS[scenario]
        order = self._order(chosen, death=death, at=at, spec=spec, **given)
        self._say(order)
        engine = int(self._hear())
        try:
            self._attend(engine)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)
            raise
        finally:
            status = int(self._hear())
        note = (self.folder / "note").read_text().splitlines()
        died_ns, _, point = note[-1].partition(" ") if note else ("0", "", "")
        self.cells += death != "none"
        self._order_of_last = order
        return Ended(status, self._log(), point, int(died_ns))

    @property
    def _chaos(self) -> Path:
        """Where middlewares are driven."""
        return self.folder / "chaos"

    def _order(self, scenario: Scenario, **given: Any) -> dict[str, Any]:
        (self.folder / "note").write_bytes(b"")
        place = Place(self.target.pid, self.name, self.pulse()[2], self.listen, str(self.folder / "fill"))
        place = replace(place, chaos=str(self._chaos))
        if self.apart is not None:
            place = replace(place, apart=self.apart.pid)
        if "nil-receiver" in scenario.kinds:
            place = replace(place, go=self._go_service().pid)
        environment = {"SQUALL_CHAOS_DIR": str(self._chaos), **dict(scenario.environment)}
        order = {
            "state": str(self._there().path), "note": str(self.folder / "note"), "points": str(self.folder / "points"),
            "log": str(self.folder / "engine.log"), "target": self.target.pid, **given,
            "spec": given.get("spec") or scenario.document(place), "environment": environment,
        }  # fmt: skip
        if self.disk_megabytes:
            order["disk"] = str(self._disk)
        if scenario.follow and scenario.kinds == {"pause"}:
            order["lose_target"] = "after pause.do"
        if scenario.own_cgroup:
            self.cgroup.mkdir(exist_ok=True)
            order["cgroup"] = str(self.cgroup)
        return order

    def _attend(self, engine: int) -> None:
        """Until the engine has ended; a target that was killed is started again, as its supervisor would.

        An engine that was stopped before it had a guardian has touched nothing: it is ended here.
        """
        deadline = time.monotonic() + CELL_S
        while (stat := proc.read_stat(engine)) is not None and not stat.gone:
            if time.monotonic() > deadline:
                raise AssertionError(f"the engine did not end: {self._log()}")
            if stat.stopped and not proc.children_of(engine) and _is_stopped(engine):
                assert not any(read_journal(run.journal).entries for run in self.state.open_runs())
                os.kill(engine, signal.SIGKILL)
            self._mend_target()
            time.sleep(0.003)

    def _mend_target(self) -> None:
        if self.target.poll() is not None:
            self.target = self._start_target()

    def tidy(self) -> None:
        """The disk is as before."""
        self._say({**self._order_of_last, "tidy": True})
        assert self._hear() == "tidy"

    def start_over(self) -> None:
        """After a cell that failed: put right what it left, so that the next one tells of itself only."""
        for pid in self._marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait_for(lambda: not self._marked(), "a killed process stays", CELL_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.target.pid, signal.SIGKILL)
        self.target.wait()
        (self.folder / "pulse").write_bytes(bytes(24))
        self._mend_target()
        _wait_for(lambda: self.pulse()[2] != 0, "the target does not start", CELL_S)
        shutil.rmtree(self.state.path)
        self.state.create()

    def _marked(self) -> list[int]:
        """The processes that carry the mark of one of this world's runs."""
        runs = {run.id for run in self.state.all_runs()}
        return [pid for pid in proc.pids() if proc.environment_value(pid, "SQUALL_RUN") in runs]

    def _log(self) -> str:
        return (self.folder / "engine.log").read_text(errors="replace")

    # --- what must be true afterwards

    def expect_target_normal(self, ended: Ended, *, recover: bool = False) -> None:
        """The target is back to normal and nothing of Squall runs, whatever became of the run's files.

        `recover`: the engine died with its guardian, and the next command looks.
        """
        try:
            self._until(lambda: not self.strays(), "processes of Squall are left")
            if recover:
                residue = [line for found in recover_orphans(self.state) for line in found.residue]
                assert residue == []
            self._until(self.target_is_well, "the target is not back to normal")
        except AssertionError as error:
            raise AssertionError(f"{ended.point} (status {ended.status}): {error}") from error

    def expect_normal(self, ended: Ended, *, recover: bool = False, kept: bool = True) -> None:
        """Everything is back to normal soon: by itself, or (both dead) when the next command looks.

        `kept`: the journal could be written to its end.
        """
        died_ns = ended.died_ns or time.monotonic_ns()
        runs = self.state.open_runs()
        if recover:
            self._until(lambda: all(_leases_ended(run.journal) for run in runs), "a lease goes on")
        if recover or all(not read_journal(run.journal).entries for run in runs):
            # Both are dead, or it died before it had a guardian and so before it touched anything: the next command
            # finds the marker. A guardian that was just killed may hold the lock for a moment.
            self._until(self._recovered, "a run is still open")
        self._until(lambda: not self.state.open_runs(), "a run is still open")
        self._until(self.target_is_well, "the target is not back to normal")
        took_ms = (time.monotonic_ns() - died_ns) / 1e6
        self.took_ms.setdefault("by the next command" if recover else "by the guardian", []).append(took_ms)
        self._until(lambda: not self.strays(), "processes of Squall are left")
        self._expect_nothing_left(kept=kept)

    def _expect_nothing_left(self, *, kept: bool) -> None:
        assert not self.port_is_taken(), "the route's port is still taken"
        assert list((self.folder / "fill").iterdir()) == [], "files are left"
        assert resource.prlimit(self.target.pid, resource.RLIMIT_NOFILE) == self.files_before
        assert [found for found in recover_orphans(self.state) if found.reverted or found.residue] == []
        assert all(path.suffix == ".live" for path in self._chaos.glob("*")), "what drove a middleware is left"
        assert self._mounts() == self.mounts, "a mount is left"
        for run in self.state.all_runs():
            if not run.path.name.startswith("checked-"):
                self._expect_of_run(run.path, kept=kept)
                shutil.rmtree(run.path)
        assert {path.name for path in self.state.path.iterdir()} <= {"runs", "open", "lock"}, "files are left"

    def _expect_of_run(self, folder: Path, *, kept: bool) -> None:
        names = {path.name for path in folder.iterdir()}
        assert names <= _RUN_FILES, f"files are left: {names - _RUN_FILES}"
        assert not (Path(UNIFIED) / f"squall-guardian-{folder.name}").exists(), "a cgroup is left"
        log = folder / "guardian.log"
        if log.exists():
            assert "Traceback" not in log.read_text(), log.read_text()
            assert "LEFT BEHIND" not in log.read_text(), log.read_text()
        view = read_journal(folder / "journal.jsonl")
        if kept:
            assert view.closed or not view.entries, "the journal is open"
            assert view.damage == []
        for entry in view.entries:
            look = entry.action.verify()
            assert look.normal, f"{entry.action.describe()}: {look.detail}"

    def forget(self, run: RunFolder) -> None:
        """Remove a run's files: a small disk has no room for many."""
        shutil.rmtree(run.path)

    def _recovered(self) -> bool:
        for found in recover_orphans(self.state):
            assert found.residue == []
        return not self.state.open_runs()

    def target_is_well(self) -> bool:
        """It ticks and opens files as before (within what a busy machine does to it), and answers; nothing of it is ours.

        One that was killed is started again first, as its supervisor would.
        """
        self._mend_target()
        try:
            threads = Path(f"/proc/{self.target.pid}/task").iterdir()
            states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
        except (FileNotFoundError, ProcessLookupError):  # it is dying
            return False
        if any("squall-hook" in file for file in proc.open_files(self.target.pid)) or not self._go_is_well():
            return False
        if "T" in states or not _clock_is_its_own(self.target.pid) or self._pace(WARM_S) < self.pace / 8:
            return False
        link = http.client.HTTPConnection("127.0.0.1", self.pulse()[2], timeout=1)
        try:
            link.request("GET", "/")
            return link.getresponse().read() == b"ok"
        except OSError:
            return False
        finally:
            link.close()

    def strays(self) -> list[str]:
        """What is left of Squall's, in words."""
        return [" ".join(proc.command_line(pid)) for pid in self._marked()]

    def port_is_taken(self) -> bool:
        """Whether somebody listens where the scenario's route was."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.listen)) == 0

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        _wait_for(condition, otherwise, PROMPT_S, self._account)

    def _account(self) -> str:
        guardians = "".join(path.read_text() for path in self.state.runs.glob("*/guardian.log"))
        journals = "".join(path.read_text() for path in self.state.runs.glob("*/journal.jsonl"))
        return f"{self.strays()}\n{self._log()}\n{guardians}\n{journals}"


def _wait_for(
    condition: Callable[[], bool], otherwise: str, seconds: float, account: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{otherwise}: {account()}"
        time.sleep(0.003)


def _clock_is_its_own(pid: int) -> bool:
    try:
        return not clock_stub.survey(process_memory.read(pid, *vdso.located(pid))).led_to
    except (
        CannotInject,
        PermissionError,
    ):  # another architecture, or another user's: nothing could be done to it either
        return True
    except OSError:
        return False


def _port_for_nobody_else() -> int:
    """A free port below those that the kernel hands out (ip(7)): nobody gets it by chance between two cells."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, min(lowest, 30_000))
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def _is_stopped(pid: int) -> bool:
    stat = proc.read_stat(pid)
    return stat is not None and stat.stopped


def _leases_ended(journal: Path) -> bool:
    """Whether every step with a lease has ended by itself."""
    view = read_journal(journal)
    return all(entry.action.verify().normal for entry in view.open_entries if entry.action.recoverability == "lease")
