"""Services that nobody prepared, in Go and Python, and faults put on them as a run would: plan, prepare, do, undo."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squall.actions import Action, Counted
from squall.faults import parse_fault
from squall.injectors import Injector, Plan, Refusal, Site
from squall.targets import ProcessTarget, find_processes
from tests import specimens
from tests.programs.build import SOURCES, go_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRIPPED = ("-ldflags=-s -w",)
TIMEOUT_S = 20.0


@dataclass
class Service(specimens.Specimen):
    """A running service, its port, and what it says on stderr."""

    port: int
    log: Path

    @property
    def target(self) -> ProcessTarget:
        """As a selector finds it."""
        return target_of(self.pid)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client that keeps its connection as long as it can."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)) as connection:
            yield Client(connection)

    def asks(self, times: int) -> list[int]:
        """The answers to so many requests: statuses, 0 for a connection that was closed instead."""
        with self.client() as client:
            return [client.ask() for _ in range(times)]


@dataclass
class Client:
    """One connection at a time."""

    connection: http.client.HTTPConnection
    took_s: list[float] = field(default_factory=list)

    def ask(self) -> int:
        """The status of one request, 0 when the connection was closed instead of an answer."""
        began = time.perf_counter()
        try:
            self.connection.request("GET", "/x")
            response = self.connection.getresponse()
            response.read()
        except (http.client.HTTPException, OSError):
            self.connection.close()
            return 0
        finally:
            self.took_s.append(time.perf_counter() - began)
        return response.status

    def median_s(self) -> float:
        """Of what requests took so far."""
        return sorted(self.took_s)[len(self.took_s) // 2]


_LOAD = """
import http.client, sys
port, answered, failed = int(sys.argv[1]), 0, 0
print("ready", flush=True)
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
while True:
    try:
        connection.request("GET", "/x")
        failed += connection.getresponse().read() is None
        answered += 1
    except (http.client.HTTPException, OSError):
        connection.close()
        failed += 1
    if (answered + failed) % 50 == 0:
        print(answered, failed, flush=True)
"""


@contextmanager
def load(port: int) -> Iterator[Callable[[], tuple[int, int]]]:
    """Requests without a rest from a process of its own; called, it tells how many were answered and how many were not."""
    with tempfile.TemporaryFile("w+") as told:
        argv = (sys.executable, "-I", "-S", "-c", _LOAD, str(port))
        with specimens.started(*argv, stdout=told) as specimen:

            def so_far() -> tuple[int, int]:
                assert specimen.state != "", "the load has ended"
                told.seek(0)
                answered, failed = told.read().splitlines()[-1].split()
                return int(answered), int(failed)

            yield so_far


@contextmanager
def service(*argv: str) -> Iterator[Service]:
    """A program whose first line is "ready PORT"; ended when the test leaves."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        with log.open("wb") as errors, specimens.started(*argv, stdout=subprocess.PIPE, stderr=errors) as specimen:
            assert specimen.popen.stdout is not None
            words = specimen.popen.stdout.readline().split()
            assert words[:1] == [b"ready"], log.read_text()
            yield Service(specimen.popen, int(words[1]), log)


@contextmanager
def go_service(way: str = "net", flags: tuple[str, ...] = ()) -> Iterator[Service]:
    """tests/programs/handlers.go; `way` is what it does with a panic."""
    with service(str(go_program("handlers", flags=flags)), "127.0.0.1:0", way) as found:
        yield found


@contextmanager
def python_service(name: str, *arguments: str, python: str = sys.executable) -> Iterator[Service]:
    """tests/programs/NAME.py."""
    with service(python, "-I", str(SOURCES / f"{name}.py"), *arguments) as found:
        yield found


@dataclass
class Injected:
    """A fault that is on: its plan and the steps as they were prepared."""

    plan: Plan
    actions: list[Action]
    held: dict[int, tuple[int, ...]]

    def counts(self) -> dict[str, int]:
        """All steps' counters."""
        found: dict[str, int] = {}
        for action in self.actions:
            if isinstance(action, Counted):
                found.update(action.counters())
        return found

    def until_counted(self, name: str, least: int) -> dict[str, int]:
        """Wait until a counter, which is published some times a second, has come so far; all of them then."""
        specimens.wait_for(lambda: self.counts().get(name, 0) >= least, f"{name} is {least}")
        return self.counts()

    def become(self, plan: Plan) -> None:
        """Adjust the fault to another plan of the same steps."""
        for number, (old, new) in enumerate(zip(self.actions, plan.actions, strict=True)):
            assert old.become(new, self.held[number]), old  # type: ignore[attr-defined]


def target_of(pid: int) -> ProcessTarget:
    """A process as a selector finds it."""
    (found,) = find_processes(pid=pid)
    return found


def site() -> Site:
    """A run of its own to plan for."""
    return Site(f"test-{os.getpid()}-{os.urandom(3).hex()}", Path("/nowhere"), "0-fault", 7)


def planned(injector: Injector, tag: str, target: ProcessTarget, **parameters: Any) -> Plan:
    """A plan, not a refusal."""
    answer = injector.plan(parse_fault(tag, parameters), target, site())
    assert isinstance(answer, Plan), answer
    return answer


def refused(injector: Injector, tag: str, target: ProcessTarget, **parameters: Any) -> str:
    """The reason of a refusal, not a plan."""
    answer = injector.plan(parse_fault(tag, parameters), target, site())
    assert isinstance(answer, Refusal), answer
    return answer.reason


@contextmanager
def injected(plan: Plan) -> Iterator[Injected]:
    """The plan's steps done in order; undone in reverse, and looked at, when the test leaves."""
    with ExitStack() as exits:
        found = Injected(plan, [], {})
        for number, action in enumerate(plan.actions):
            prepared = action.prepare()
            exits.callback(_undo, prepared, found, number)
            found.held[number] = tuple(prepared.do())
            found.actions.append(prepared)
        yield found


def _undo(action: Action, found: Injected, number: int) -> None:
    for fd in found.held.pop(number, ()):
        os.close(fd)
    action.undo()
    look = action.verify()
    assert look.normal, look.detail
