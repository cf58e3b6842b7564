"""A real target, a state folder, and runs of experiments on them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import squall.analysis.steady
from squall.engine import Outcome, Run
from squall.events import Event, Stamped, decode
from squall.experiment.model import Experiment
from squall.injectors import INJECTORS, Chooser, Host
from squall.kernel import proc
from squall.recovery import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVICE = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@dataclass
class Service:
    """A small HTTP service in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def state(self) -> str:
        stat = proc.read_stat(self.pid)
        return stat.state if stat is not None else ""


def start_service(port: int = 0) -> Service:
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(port)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    return Service(process, int(line))


@pytest.fixture
def service() -> Iterator[Service]:
    one = start_service()
    yield one
    one.process.kill()
    one.process.wait()


@pytest.fixture(autouse=True)
def quick_healing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of tenths of a second: what is stable is stable for 200 ms."""
    monkeypatch.setattr(squall.analysis.steady, "STABLE_NS", 200_000_000)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


@dataclass
class Bench:
    """Makes and executes runs."""

    state: State
    events: list[Stamped] = field(default_factory=list)
    run: Run | None = None

    def execute(
        self, spec: dict[str, Any], *, meanwhile: Callable[[Bench], Any] | None = None, **given: Any
    ) -> Outcome:
        """Run to the end; `meanwhile` is awaited beside it."""
        return asyncio.run(self._execute(spec, meanwhile, given))

    async def _execute(self, spec: dict[str, Any], meanwhile: Any, given: dict[str, Any]) -> Outcome:
        experiment = Experiment.model_validate(
            {"name": "a-test", "baseline": "300ms", "recovery": {"within": "2s"}, **spec}
        )
        chooser = Chooser(INJECTORS, Host.look())
        self.run = Run(experiment, state=self.state, chooser=chooser, listeners=[self.events.append], **given)
        beside = asyncio.create_task(meanwhile(self)) if meanwhile else None
        try:
            return await self.run.execute()
        finally:
            if beside is not None:
                await beside

    async def until(self, kind: type[Event], within: float = 15.0) -> Any:
        """The first event of this kind."""
        deadline = time.monotonic() + within
        while True:
            for stamped in self.events:
                if isinstance(stamped.event, kind):
                    return stamped.event
            assert time.monotonic() < deadline, f"no {kind.kind} in {[s.event.kind for s in self.events]}"
            await asyncio.sleep(0.005)

    def of(self, kind: type[Event]) -> list[Any]:
        return [stamped.event for stamped in self.events if isinstance(stamped.event, kind)]

    def written(self, outcome: Outcome) -> list[Stamped]:
        return [decode(line) for line in outcome.run.events.read_text().splitlines()]


@pytest.fixture
def bench(state: State) -> Bench:
    return Bench(state)
