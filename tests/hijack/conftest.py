"""Services and clients that know nothing of a proxy, and faults on them: planned by the chooser, done, undone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import Hijack
from squall.actions.base import Adjustable
from squall.errors import CannotInject
from squall.faults import parse_fault
from squall.injectors import INJECTORS, Chooser, Host, Site
from squall.injectors.hijack import HijackInjector
from squall.kernel.bpf import loads
from squall.targets import ProcessIdentity, ProcessTarget, find_cgroup
from tests.programs.build import go_program
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from squall.actions import Action
    from squall.injectors import Plan
    from squall.targets import Target
    from tests.kernel_world import KernelWorld

PROGRAMS = Path(__file__).parents[1] / "programs"
PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def _hijack_is_possible() -> None:
    answer = loads("hijack")
    if answer.works is False:
        pytest.skip(f"this kernel takes no hijack: {answer.reason}")


@dataclass
class Greeter:
    """A server in this process: what a line is answered with says whence the connection came."""

    host: str
    listener: socket.socket
    came_from: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def serve(self) -> None:
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            self.came_from.append(f"{peer[0]}:{peer[1]}")
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for line in connection.makefile("rb"):
                connection.sendall(b"hello " + line)


@contextmanager
def greeter(host: str = "127.0.0.1") -> Iterator[Greeter]:
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256)
    found = Greeter(host, listener)
    thread = threading.Thread(target=found.serve, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_S)


@dataclass
class Caller:
    """A client in a process of its own; one question at a time."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def target(self) -> ProcessTarget:
        return ProcessTarget(ProcessIdentity.of(self.pid), "caller")

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def quickest_ms(self, what: str) -> float:
        """How long it takes on a machine that is not busy for once: the least of a few."""
        return min(float(self.ask(what)["ms"]) for _ in range(4))

    def dial(self, address: str) -> dict[str, Any]:
        return self.ask(f"dial {address}")

    def get(self, url: str) -> dict[str, Any]:
        return self.ask(f"get {url}")


@contextmanager
def in_cgroup(folder: Path | None, *argv: str, **given: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is in this cgroup from its first instruction."""
    words = argv if folder is None else ("sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(folder), *argv)
    process = subprocess.Popen(words, text=True, **given)
    try:
        if folder is not None:
            wait_for(lambda: str(process.pid) in (folder / "cgroup.procs").read_text().split(), "it is in its cgroup")
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.kill()
        process.wait()


def language(name: str) -> tuple[str, ...]:
    """How the client is started that is written in this language."""
    return (
        (sys.executable, "-I", "-S", str(PROGRAMS / "caller.py")) if name == "python" else (str(go_program("caller")),)
    )


@contextmanager
def caller(folder: Path | None = None, written_in: str = "python") -> Iterator[Caller]:
    argv = language(written_in)
    with in_cgroup(folder, *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        found = Caller(process)
        found.dial("127.0.0.1:1")  # it runs, and is where it belongs
        yield found


@contextmanager
def web(folder: Path | None = None, address: str = "127.0.0.1:0") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A static Go HTTP server, and its port."""
    program = str(go_program("handlers"))
    with in_cgroup(folder, program, address, "net", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().split()[1])


@dataclass
class InForce:
    """A fault that is on."""

    plan: Plan
    steps: list[Action]
    held: list[tuple[int, ...]]
    site: Site
    target: Target

    @property
    def hijack(self) -> Hijack:
        return next(step for step in self.steps if isinstance(step, Hijack))

    def counted(self, name: str, least: int = 1) -> None:
        """Wait until this was counted; counts are published several times a second."""
        wait_for(lambda: self.hijack.counters().get(name, 0) >= least, f"{least} {name}")

    def become(self, type_: str, **parameters: Any) -> None:
        """Adjust it, as a run does."""
        new = HijackInjector().plan(parse_fault(type_, parameters), self.target, self.site)
        assert not hasattr(new, "reason"), new
        for old, step, held in zip(self.steps, new.actions, self.held, strict=True):  # type: ignore[union-attr]
            if old != step:
                assert isinstance(old, Adjustable)
                assert old.become(step, held)


@dataclass
class Faults:
    """Begins faults as a run would."""

    folder: Path
    number: int = 0

    def plan(self, target: Target, type_: str, **parameters: Any) -> Plan:
        self.number += 1
        site = Site("test-run", self.folder, f"{self.number}-{type_}", 7)
        return Chooser(INJECTORS, Host.look()).choose(parse_fault(type_, parameters), target, site).plan

    @contextmanager
    def on(self, target: Target, type_: str, **parameters: Any) -> Iterator[InForce]:
        """The fault, until the block ends; then everything is back to normal, which is looked at."""
        plan = self.plan(target, type_, **parameters)
        site = Site("test-run", self.folder, f"{self.number}-{type_}", 7)
        assert plan.mechanism == "hijack"
        found = InForce(plan, [], [], site, target)
        done: list[tuple[Action, tuple[int, ...]]] = []
        try:
            for action in plan.actions:
                step = action.prepare()
                held = tuple(step.do())
                done.append((step, held))
                found.steps.append(step)
                found.held.append(held)
            yield found
        finally:
            looks = []
            for step, held in reversed(done):
                for fd in held:
                    os.close(fd)
                step.undo()
                looks.append(step.verify())
            assert all(look.normal for look in looks), looks

    def refused(self, target: Target, type_: str, **parameters: Any) -> str:
        """Why it cannot be."""
        with pytest.raises(CannotInject) as refusal:
            self.plan(target, type_, **parameters)
        return str(refusal.value)


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


@pytest.fixture
def app(kernel_world: KernelWorld) -> Path:
    """A cgroup for what is hit."""
    return kernel_world.subgroup("app")


@pytest.fixture
def cgroup_target() -> Callable[[Path], Target]:
    return lambda folder: find_cgroup(str(folder))
