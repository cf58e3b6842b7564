"""An experiment drives a real service's middleware: from the command line to the report, and when everything dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall.kernel import proc
from tests.resilience.chaos.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.resilience.chaos.conftest import Driver, Service

    Serve = Callable[..., Service]

pytestmark = pytest.mark.slow
DRIVEN = {"SQUALL_CHAOS_DRIVEN": "on"}
EXPERIMENT = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: inside}}
spec:
  targets: {{middleware: shop}}
  baseline: 1s
  duration: 3s
  seed: 11
  faults:
    - {{type: http.delay, delay: 200ms, jitter: 50ms, path: "/orders/*", duration: 1400ms}}
    - {{type: http.abort, status: 503, body: gone, percent: 50%, path: "/orders/*", after: 1600ms, duration: 1200ms}}
  steadyState:
    - {{name: orders, every: 50ms, http: {{url: "http://127.0.0.1:{port}/orders/1"}}}}
    - {{name: health, every: 50ms, http: {{url: "http://127.0.0.1:{port}/health"}}}}
  tolerate: {{errorRate: 60%, p95: 1s, exceptFor: 1s}}
  abort: {{errorRate: 90%, p95: 5s}}
  recovery: {{within: 10s}}
"""


class Squall:
    """The command line with a state folder of its own, and the services' folder."""

    def __init__(self, state: Path, folder: Path) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUALL_")}
        self.environment = plain | {"SQUALL_STATE": str(state), "SQUALL_CHAOS_DIR": str(folder)}
        self.state = state

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "squall", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "squall", *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def processes(self) -> list[int]:
        """Those of its runs: guardians and workers."""
        runs = {path.name for path in (self.state / "runs").glob("*")}
        return [pid for pid in proc.pids() if proc.environment_value(pid, "SQUALL_RUN") in runs]


@pytest.fixture
def squall(tmp_path: Path, driver: Driver) -> Iterator[Squall]:
    made = Squall(tmp_path / "state", driver.folder)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def started(squall: Squall, serve: Serve, *more: str) -> tuple[Service, subprocess.Popen[bytes]]:
    """A service whose answers are 300 ms late, and the experiment that makes them so."""
    service = serve("asgi", **DRIVEN)
    fault = ("inject", "http.delay", "--target", "middleware:shop", "--delay", "300ms", "--duration", "60s")
    run = squall.start(*fault, "--baseline", "200ms", "--quiet", *more)
    wait_for(lambda: service.get("/x").seconds >= 0.3, "the fault does not begin", 20)
    return service, run


def test_delay_and_abort_are_counted_in_the_report(
    squall: Squall, serve: Serve, driver: Driver, tmp_path: Path
) -> None:
    service = serve("asgi", **DRIVEN)
    document = tmp_path / "inside.yaml"
    document.write_text(EXPERIMENT.format(port=service.port))
    ran = squall("run", str(document), "--json", "--quiet")
    told: dict[str, Any] = json.loads(ran.stdout)
    assert told["verdict"] == "passed", ran.stdout + ran.stderr
    logged = [line["fault"] for line in service.lines()]
    hits = {fault["id"]: fault["hits"] for fault in told["faults"]}
    for fault, counter in (("0-http.delay", "delayed"), ("1-http.abort", "aborted")):
        assert hits[fault][counter] > 2
        assert 0 <= logged.count(fault) - hits[fault][counter] <= 4  # it is looked at five times a second
    assert hits["1-http.abort"]["left"] >= hits["1-http.abort"]["aborted"]  # the other half, and /health
    assert {line["path"] for line in service.lines()} == {"/orders/1"}
    assert [path.suffix for path in driver.folder.iterdir()] == [".live"]


def test_the_service_is_itself_within_a_second_when_everything_is_killed(squall: Squall, serve: Serve) -> None:
    service, run = started(squall, serve)
    for pid in (run.pid, *squall.processes()):
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    assert run.wait(10) == -signal.SIGKILL
    wait_for(lambda: service.get("/x").seconds < 0.2, "it goes on", 3)
    assert time.monotonic() - killed < 1.5
    assert squall("status").returncode == 0  # whoever comes next finds what was left, and takes it away
    wait_for(lambda: not list((squall.state / "open").glob("*")), "a run is still open", 10)


def test_a_worker_that_stands_still_lets_go_within_a_second(squall: Squall, serve: Serve) -> None:
    service, run = started(squall, serve)
    (worker,) = [pid for pid in squall.processes() if (stat := proc.read_stat(pid)) and stat.comm == "squall-chaos"]
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: service.get("/x").seconds < 0.2, "it goes on", 3)
    os.kill(worker, signal.SIGCONT)
    run.terminate()
    run.wait(20)


def test_two_runs_do_not_drive_the_same_middleware(
    squall: Squall, serve: Serve, driver: Driver, tmp_path: Path
) -> None:
    _, run = started(squall, serve)
    again = (
        "inject",
        "http.abort",
        "--target",
        "middleware:shop",
        "--duration",
        "1s",
        "--baseline",
        "200ms",
        "--quiet",
    )
    refused = squall(*again)
    assert refused.returncode != 0
    assert "middleware:" in refused.stderr
    other = Squall(tmp_path / "other", driver.folder)  # one that knows nothing of the first
    refused = other(*again)
    assert "is driven by run" in refused.stdout + refused.stderr
    run.terminate()
    run.wait(20)


def test_halt_ends_the_run_and_the_services_own_chaos(squall: Squall, serve: Serve, driver: Driver) -> None:
    service = serve(
        "asgi", SQUALL_CHAOS_ENABLED="on", SQUALL_CHAOS_UNTIL="2999-01-01T00:00:00Z", SQUALL_CHAOS_SAMPLE="1",
        SQUALL_CHAOS_DELAY_MIN="200ms", SQUALL_CHAOS_REQUIRE_HEADER="off",
    )  # fmt: skip
    assert service.get("/x").seconds >= 0.2
    assert squall("halt").returncode == 0
    assert (driver.folder / "HALT").exists()
    wait_for(lambda: service.get("/x").seconds < 0.2, "it goes on")
    assert squall("halt", "--off").returncode == 0
    wait_for(lambda: service.get("/x").seconds >= 0.2, "it stays halted")


def test_what_is_missing_is_said(squall: Squall, serve: Serve, driver: Driver) -> None:
    dry = ("inject", "http.delay", "--delay", "1ms", "--duration", "1s", "--dry-run", "--target")
    nobody = squall(*dry, "middleware:shop")
    assert f"there is no middleware 'shop' alive in {driver.folder} (there is none at all)" in nobody.stderr
    service = serve("asgi", **DRIVEN)
    assert "(there are shop)" in squall(*dry, "middleware:shp").stderr
    assert f"middleware shop (pid {service.process.pid})" in squall(*dry, "middleware:shop").stdout
    driver.folder.chmod(0o777)
    assert "writable by all" in squall(*dry, "middleware:shop").stderr
