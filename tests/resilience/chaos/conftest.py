"""Services in processes of their own, and who drives them as Squall does, by the protocol alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICES = Path(__file__).with_name("services.py")
FAULT = {
    "id": "0-http.delay", "require_header": False, "header": "X-Chaos-Enabled", "sample": 1.0, "method": "", "path": "",
    "headers": {}, "delay_min_ns": 100_000_000, "delay_max_ns": 100_000_000, "abort_status": None, "abort_body": "",
    "abort_headers": {}, "seed": 7,
}  # fmt: skip


@dataclass
class Answer:
    status: int
    body: bytes
    seconds: float
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    process: subprocess.Popen[str]
    port: int
    log: Path

    def get(self, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            began = time.monotonic()
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            data = response.read()
            return Answer(response.status, data, time.monotonic() - began, dict(response.headers))

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged of injections."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@dataclass
class Driver:
    """The folder in which a middleware is driven."""

    folder: Path
    name: str = "shop"
    faults: list[dict[str, Any]] = field(default_factory=list)

    def switch_on(self, **given: Any) -> None:
        self.write(json.dumps({"version": 1, "run": "test", "faults": [{**FAULT, **given}]}))
        self.renew()

    def write(self, text: str) -> None:
        aside = self.folder / ".aside"
        aside.write_text(text)
        aside.chmod(0o644)
        aside.rename(self.folder / f"{self.name}.json")

    def renew(self, ahead_s: float = 9.0) -> None:
        until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(ahead_s * 1e9)
        lease = self.folder / f"{self.name}.lease"
        lease.write_bytes(until.to_bytes(8, "little"))
        lease.chmod(0o644)

    def live(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.name}.*.live"))


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    folder = tmp_path / "chaos"
    folder.mkdir(mode=0o755)
    return Driver(folder)


@pytest.fixture
def serve(tmp_path: Path, driver: Driver) -> Iterator[Callable[..., Service]]:
    """Starts services: `serve("asgi", SQUALL_CHAOS_DRIVEN="on")`."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, **environment: str) -> Service:
        log = tmp_path / f"{kind}-{len(started)}.log"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUALL_")}
        given = {"SQUALL_CHAOS_DIR": str(driver.folder), "SQUALL_CHAOS_SERVICE": "shop", **environment}
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, str(SERVICES), kind], env=plain | given, stdout=subprocess.PIPE, stderr=file, text=True
            )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        return Service(process, int(line), log)

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Until it is so; fails when it is not so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
