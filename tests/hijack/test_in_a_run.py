"""`squall inject` on services that nobody prepared: measured, adjusted, judged, and freed whatever dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from squall.kernel import proc
from tests.hijack.conftest import caller, web
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hijack.conftest import Caller

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SQUALL = (sys.executable, "-m", "squall")
LATE_MS = 400


@contextlib.contextmanager
def inject(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "SQUALL_STATE": str(state)}
    command = [*SQUALL, "inject", *arguments, "--baseline", "500ms", "--within", "5s", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, wrong = process.communicate(timeout=60)
    assert said, wrong
    found: dict[str, Any] = json.loads(said)
    return found


def events(state: Path) -> list[dict[str, Any]]:
    found = sorted((state / "runs").glob("*/events.jsonl"))
    return [json.loads(line) for line in found[-1].read_text().splitlines()] if found else []


def is_late(client: Caller, url: str) -> bool:
    found = client.get(url)
    return not found["error"] and bool(found["ms"] >= LATE_MS)


def test_a_static_go_server_is_slow_for_its_clients_and_fast_again(tmp_path: Path) -> None:
    with web() as (service, port), caller(None, "go") as client:
        url = f"http://127.0.0.1:{port}/"
        arguments = ("tcp.latency", "--latency", f"{LATE_MS}ms", "-t", f"pid:{service.pid}", "-d", "4s")
        with inject(tmp_path, *arguments) as run:
            wait_for(lambda: is_late(client, url), "it is late")
            adjusted = subprocess.run(
                [*SQUALL, "adjust", max(path.name for path in (tmp_path / "runs").iterdir()), "tcp.latency", "latency=1ms"],
                capture_output=True, text=True, env={**os.environ, "SQUALL_STATE": str(tmp_path)}, timeout=30, check=False,
            )  # fmt: skip
            assert adjusted.returncode == 0, adjusted.stderr
            assert client.quickest_ms(f"get {url}") < LATE_MS
            found = answer(run)
        assert run.returncode in (0, 6), found
        assert client.quickest_ms(f"get {url}") < LATE_MS
        hits = [one["counters"] for one in events(tmp_path) if "counters" in one][-1]
        assert hits["led"] >= 1
        assert hits["connections"] >= 1


def test_a_client_in_a_cgroup_that_everybody_shares(tmp_path: Path) -> None:
    with web() as (_, port), caller(None, "go") as client, caller() as neighbour:
        url = f"http://127.0.0.1:{port}/"
        arguments = ("http.abort", "--status", "503", "--connections", "outbound", "--ports", str(port))
        before = proc.PROC / str(client.pid) / "cgroup"
        home = before.read_text()
        with inject(tmp_path, *arguments, "-t", f"pid:{client.pid}", "-d", "2s") as run:
            wait_for(lambda: client.get(url)["status"] == 503, "it is told no")
            assert neighbour.get(url)["status"] == 200
            found = answer(run)
        assert run.returncode in (0, 6), found
        wait_for(lambda: client.get(url)["status"] == 200, "it is told yes again")
        assert before.read_text() == home


def test_requests_that_nobody_can_read_are_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with web() as (service, port):
        arguments = ("http.abort", "-t", f"pid:{service.pid}", "-d", "2s", "--probe", f"https://127.0.0.1:{port}/")
        with inject(tmp_path, *arguments) as run:
            _, wrong = run.communicate(timeout=60)
        assert run.returncode == 4
        assert "is used with https" in " ".join(wrong.split())


@pytest.mark.parametrize("victim", ["engine", "proxy"])
def test_whoever_is_killed_the_service_is_free_at_once(tmp_path: Path, victim: str) -> None:
    with web() as (service, port), caller() as client:
        url = f"http://127.0.0.1:{port}/"
        arguments = ("http.abort", "--status", "503", "-t", f"pid:{service.pid}", "-d", "30s")
        with inject(tmp_path, *arguments) as run:
            wait_for(lambda: client.get(url)["status"] == 503, "it is told no")
            if victim == "engine":
                run.kill()
            else:
                (proxy,) = [
                    pid for pid in proc.descendants(run.pid) if "squall.proxy.hijacked" in proc.command_line(pid)
                ]
                os.kill(proxy, signal.SIGKILL)
            wait_for(lambda: client.get(url)["status"] == 200, "it is free", 5)
            if victim == "proxy":
                assert answer(run)["verdict"] in ("inconclusive", "aborted")
        wait_for(lambda: not _left(run.pid), "nothing of Squall is left")


def _left(engine: int) -> list[int]:
    return [pid for pid in proc.pids() if "squall.proxy.hijacked" in proc.command_line(pid) and engine]
