"""A real Go service with the middleware in it, driven: by the files of sdk/PROTOCOL.md, and by `squall inject`."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.sdk_go.go_module import SDK, build
from tests.servers import program as server_program
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

PATIENCE_S = 20.0
DELAY_S = 0.3
GUIDE = (SDK.parents[1] / "docs" / "how-to" / "chaos-in-a-go-service.md").read_text()
SIGN = re.findall(r'^curl -H "X-Chaos-Enabled: (.*)" http', GUIDE, re.MULTILINE)[0]
SIGN = f'now=$(date +%s); printf %s "{SIGN}"'
"""The signature as the how-to guide makes it in a shell."""


@dataclass(frozen=True)
class Service:
    """The orders service and the folder in which it meets Squall."""

    process: subprocess.Popen[str]
    address: str
    folder: Path

    def get(self, path: str, **headers: str) -> tuple[int, str, float]:
        """Status, body and seconds of a request."""
        begun = time.monotonic()
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), time.monotonic() - begun
        finally:
            connection.close()

    def put(self, name: str, content: bytes) -> None:
        """Put a file there as Squall does: written aside, renamed."""
        aside = self.folder / ".aside"
        aside.write_bytes(content)
        aside.rename(self.folder / name)

    def lease(self, ahead_s: float) -> None:
        self.put("orders.lease", struct.pack("<q", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(ahead_s * 1e9)))

    def live(self) -> tuple[int, ...]:
        """Requests, delayed, aborted, refused, sum of delays, last."""
        return struct.unpack_from("<6Q", (self.folder / f"orders.{self.process.pid}.live").read_bytes(), 24)

    def injected(self, reason: str) -> int:
        """The counter on /metrics."""
        line = f'http_chaos_injected_total{{service="orders",reason="{reason}"}} '
        (found,) = [each for each in self.get("/metrics")[1].splitlines() if each.startswith(line)]
        return int(found.removeprefix(line))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(".", "./examples/orders", tmp_path_factory.mktemp("go") / "orders")


@contextmanager
def served(program: Path, folder: Path, **more: str) -> Iterator[Service]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUALL_CHAOS")}
    environment |= {"SQUALL_CHAOS_DIR": str(folder), **more}
    with (folder.parent / "log").open("w") as log, subprocess.Popen(
        [program], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield Service(process, process.stdout.readline().strip().removeprefix("http://"), folder)
        finally:
            process.kill()


@pytest.fixture
def service(program: Path, tmp_path: Path) -> Iterator[Service]:
    folder = tmp_path / "chaos"  # which the service makes itself
    with served(program, folder) as found:
        yield found


def test_it_registers_and_withdraws(service: Service) -> None:
    assert [path.name for path in service.folder.iterdir()] == [f"orders.{service.process.pid}.live"]
    assert service.folder.stat().st_mode & 0o777 == 0o755
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE_S) == 0
    assert list(service.folder.iterdir()) == []


def test_it_does_what_the_files_say_as_long_as_the_lease_holds(service: Service) -> None:
    fault = {
        "id": "0-http.abort", "require_header": False, "header": "X-Chaos-Enabled", "sample": 1.0, "method": "GET",
        "path": "/orders/*", "headers": {"X-Tenant": "test-*"}, "delay_min_ns": 0, "delay_max_ns": 0, "abort_status": 503,
        "abort_body": "no orders today", "abort_headers": {"Retry-After": "3"}, "seed": 7,
    }  # fmt: skip
    assert service.get("/orders/7", **{"X-Tenant": "test-1"})[0] == 200
    service.put("orders.json", json.dumps({"version": 1, "run": "r-1", "faults": [fault]}).encode())
    service.lease(5)
    wait_for(
        lambda: service.get("/orders/7", **{"X-Tenant": "test-1"})[:2] == (503, "no orders today"), "the abort is on"
    )
    assert service.get("/orders/7")[0] == 200
    seen, delayed, aborted, refused, slept, last = service.live()
    assert (delayed, refused, slept) == (0, 0, 0)
    assert seen > aborted > 0
    assert 0 < last <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert service.injected("abort") == aborted
    service.lease(0.2)
    wait_for(lambda: service.get("/orders/7", **{"X-Tenant": "test-1"})[0] == 200, "the lease has lapsed")


def test_what_it_measures_is_what_prometheus_reads(service: Service) -> None:
    promtool = server_program("promtool")
    said = subprocess.run(
        [promtool.path, "check", "metrics"], input=service.get("/metrics")[1], env=promtool.env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_squall_drives_it(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_CHAOS_DIR", str(service.folder))
    command = [
        sys.executable, "-m", "squall", "inject", "http.delay", "--target", "middleware:orders", "--delay", f"{DELAY_S}s",
        "--path", "/orders/*", "--duration", "3s", "--probe", f"http://{service.address}/metrics",
    ]  # fmt: skip
    took: list[float] = []
    ended = threading.Event()

    def order() -> None:
        while not ended.wait(0.02):
            took.append(service.get("/orders/7")[2])

    customer = threading.Thread(target=order)
    customer.start()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    finally:
        ended.set()
        customer.join()
    assert done.returncode == 0, done.stdout + done.stderr
    delayed = [seconds for seconds in took if seconds >= DELAY_S]
    assert 3 <= service.live()[1] == service.injected("delay")
    assert len(delayed) <= service.live()[1] <= len(delayed) + 1  # the one that was held when it ended was let go
    assert took[0] < DELAY_S > service.get("/orders/7")[2]
    assert sorted(path.suffix for path in service.folder.iterdir()) == [".live"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == service.live()[1]
    assert {(line["msg"], line["reason"], line["delay_ms"], line["path"]) for line in lines} == {
        ("chaos injected", "delay", DELAY_S * 1000, "/orders/7")
    }


def test_a_delay_that_is_under_way_ends_when_squall_dies(service: Service) -> None:
    fault = {
        "id": "f", "require_header": False, "header": "X-Chaos-Enabled", "sample": 1.0, "method": "", "path": "",
        "headers": {}, "delay_min_ns": 60 * 10**9, "delay_max_ns": 60 * 10**9, "abort_status": None, "abort_body": "",
        "abort_headers": {}, "seed": 7,
    }  # fmt: skip
    service.put("orders.json", json.dumps({"version": 1, "run": "r-1", "faults": [fault]}).encode())
    service.lease(1)
    begun = time.monotonic()
    while service.live()[1] == 0:
        service.get("/orders/7")
        assert time.monotonic() - begun < PATIENCE_S
    assert time.monotonic() - begun < PATIENCE_S


def test_the_documented_experiment_finds_it(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_CHAOS_DIR", str(service.folder))
    document = tmp_path / "orders-late.yaml"
    document.write_text(re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[0])
    done = subprocess.run(
        [sys.executable, "-m", "squall", "run", "--dry-run", str(document)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "middleware orders" in done.stdout
    assert list(service.folder.glob("*.json")) == []


def test_its_own_settings_come_from_the_environment(program: Path, tmp_path: Path) -> None:
    secret = "a secret of enough letters"
    environment = {
        "ENABLED": "true", "UNTIL": "2099-12-31T18:00:00Z", "SAMPLE": "100%", "ABORT_STATUS": "429", "ABORT_SHARE": "1",
        "SECRET": secret,
    }  # fmt: skip
    with served(
        program, tmp_path / "chaos", **{f"SQUALL_CHAOS_{name}": value for name, value in environment.items()}
    ) as service:
        signed = subprocess.run(
            ["sh", "-c", SIGN], env={**os.environ, "SQUALL_CHAOS_SECRET": secret}, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
        if "." not in signed.strip().rstrip("."):
            pytest.skip("needs openssl: apt-get install openssl")
        assert service.get("/orders/7", **{"X-Chaos-Enabled": signed.strip()})[0] == 429
        assert service.get("/orders/7", **{"X-Chaos-Enabled": "1"})[0] == 200
        assert service.get("/orders/7")[0] == 200
        assert 'http_chaos_refused_total{service="orders"} 1\n' in service.get("/metrics")[1]
        (service.folder / "HALT").touch()
        wait_for(lambda: service.get("/orders/7", **{"X-Chaos-Enabled": signed.strip()})[0] == 200, "it is halted")


def test_settings_that_cannot_be_are_said_at_the_start(program: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "SQUALL_CHAOS_DIR": str(tmp_path),
        "SQUALL_CHAOS_SAMPEL": "1",
        "SQUALL_CHAOS_SEED": "-1",
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "SQUALL_CHAOS_SAMPEL" in done.stderr
    assert 'SQUALL_CHAOS_SEED is "-1"; allowed is 0 to 2^64 - 1' in done.stderr
