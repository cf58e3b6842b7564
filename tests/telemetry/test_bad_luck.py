"""What telemetry is told to that is down, hangs, is full or is missing costs a run nothing but a line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from squall.errors import InputError
from squall.events import FaultEnded, FaultStarted, RunFinished, RunStarted, StageEntered, Stamp, Stamped
from squall.probes.samples import Sample
from squall.probes.traceparent import RunTrace
from squall.telemetry.telling import END_S, WAITING_MOST, Telling
from squall.telemetry.wanted import Wanted, read_address, wanted
from tests.telemetry.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from squall.events import Event

DOCUMENT = {"spec": {"faults": [{"type": "http.delay", "after": "0s", "duration": "1s"}]}}


def events() -> list[Event]:
    trace = RunTrace.of("run-1").traceparent
    return [
        RunStarted("a", 1, "0", {}, DOCUMENT, trace),
        StageEntered("monitor", 10**9),
        FaultStarted("0-http.delay", 1000),
        FaultEnded("0-http.delay", 1000),
        RunFinished(0),
    ]


def stamped(event: Event, seq: int) -> Stamped:
    return Stamped(Stamp("run-1", seq, time.time_ns(), time.monotonic_ns()), event)


def told(asked: Wanted, *, batches: int = 20) -> tuple[list[str], float, float]:
    """Tell a whole run at once; what was said, how long the longest call took, and how long the end."""
    said: list[str] = []
    longest = 0.0
    with Telling(asked, said.append) as telling:
        for seq, event in enumerate(events()):
            began = time.perf_counter()
            telling.hear(stamped(event, seq))
            for batch in range(batches if seq == 2 else 0):
                telling.take([Sample("load", time.monotonic_ns(), 10**6, "ok", 0.0, 200, batch + 1)])
            longest = max(longest, time.perf_counter() - began)
        began = time.perf_counter()
        telling.close()
        ended = time.perf_counter() - began
        telling.close()
    return said, longest, ended


@contextmanager
def deaf() -> Iterator[str]:
    """A collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_collector_that_hangs_costs_at_most_the_bound() -> None:
    with deaf() as url:
        said, longest, ended = told(wanted(otlp=url, environment={}))
    assert longest < 0.5
    assert ended < END_S + 1.5
    assert len(said) == 1
    assert said[0].startswith("telemetry is incomplete: ")


@pytest.mark.slow
def test_a_collector_that_is_down_is_said_once() -> None:
    said, longest, ended = told(wanted(otlp="http://127.0.0.1:1", environment={}))
    assert longest < 0.5
    assert ended < END_S + 1.5
    assert len(said) == 1
    assert "127.0.0.1" in said[0]


def test_a_full_disk_is_said_once_and_the_rest_is_told() -> None:
    said, _, ended = told(wanted(lines="/dev/full", environment={}))
    assert said == ["log lines cannot be written to /dev/full: No space left on device"]
    assert ended < 1


@pytest.mark.slow
def test_a_reader_that_does_not_read_does_not_hold_the_run_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        with suppress(BlockingIOError):
            while os.write(filler, b"x" * 65_536):
                pass
        said, longest, ended = told(wanted(lines=str(pipe), environment={}))
        assert longest < 0.5
        assert ended < END_S + 1.5
        assert [line.partition(":")[0] for line in said] == ["telemetry is incomplete"]
        wait_for(lambda: b"run-started" in os.read(reader, 1 << 20), "who reads later gets what was written")
    finally:
        os.close(reader)
        os.close(filler)


def test_more_than_there_is_room_for_is_dropped_and_counted() -> None:
    with Telling(wanted(lines=os.devnull, environment={}), (said := []).append) as telling:
        began = time.perf_counter()
        for _ in range(WAITING_MOST * 2):
            telling._put([])
        assert time.perf_counter() - began < 2
    assert not said or "no room for" in said[0]


def test_nothing_is_told_to_a_pipe_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"--log-json .* cannot be opened"):
        Telling(wanted(lines=str(tmp_path / "pipe"), environment={}), lambda _: None)


def test_a_port_that_is_taken_is_said_before_anything_is_touched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot be listened on: Address already in use"):
            Telling(wanted(listen=address, environment={}), lambda _: None)


@pytest.mark.parametrize("text", ["", "9464", "a", "a:b", "a:70000", "1:2:3", "a:-1"])
def test_an_address_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match="write HOST:PORT"):
        read_address(text)


def test_addresses() -> None:
    assert read_address(":0") == ("127.0.0.1", 0)
    assert read_address("[::1]:9464") == ("::1", 9464)
    assert read_address("0.0.0.0:1") == ("0.0.0.0", 1)


@pytest.mark.parametrize(("option", "module"), [("otlp", "opentelemetry"), ("listen", "prometheus_client")])
def test_what_is_not_installed_is_said_with_how_to_get_it(
    option: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    value = {"otlp": "http://127.0.0.1:4318", "listen": "127.0.0.1:0"}[option]
    with pytest.raises(InputError, match=r"is not installed here: pip install 'squall\[telemetry\]'"):
        wanted(**{option: value}, environment={})  # type: ignore[arg-type]
    if option == "otlp":
        found = wanted(environment={"OTEL_EXPORTER_OTLP_ENDPOINT": value})
        assert not found.anything, "nobody asked Squall for it: it goes on without"
        assert "pip install" in found.remarks[0]


def test_the_environment_is_followed_as_far_as_it_can_be() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert wanted(environment=endpoint).from_environment
    assert not wanted(environment=endpoint | {"OTEL_SDK_DISABLED": "true"}).anything
    assert not wanted(environment=endpoint | {"OTEL_METRICS_EXPORTER": "none"}).metrics
    grpc = wanted(environment=endpoint | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert not grpc.anything
    assert "over HTTP" in grpc.remarks[0]
    assert wanted(environment={}).tracing is None, "nobody would see it: requests carry nothing"
    assert wanted(environment={"TRACEPARENT": RunTrace.of("x").traceparent}).tracing is not None


QUICKLY = """
import sys
import squall.analysis.steady
from squall.cli import main
squall.analysis.steady.STABLE_NS = 100_000_000
sys.argv[:1] = ["squall", "inject", "process.pause", "-d", "200ms", "--baseline", "0s", "-t"]
"""
"""A program that injects as the command line does, and waits less long for the healing to last."""


@pytest.mark.slow
def test_nothing_is_imported_that_is_not_wanted(tmp_path: Path) -> None:
    script = f"""{QUICKLY}
try:
    main()
except SystemExit:
    pass
heavy = ("opentelemetry", "prometheus_client", "requests", "structlog", "google", "squall.telemetry.telling")
print("imported:", *(name for name in heavy if name in sys.modules), file=sys.stderr)
"""
    with subprocess.Popen(["sleep", "60"]) as target:
        try:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
            done = subprocess.run(
                [sys.executable, "-c", script, f"pid:{target.pid}", "-q"], capture_output=True, text=True, check=False, timeout=60,
                env={**environment, "SQUALL_STATE": str(tmp_path)},
            )  # fmt: skip
        finally:
            target.kill()
    assert done.stderr.splitlines()[-1] == "imported:"
    assert len(list((tmp_path / "runs").iterdir())) == 1, done.stderr


@pytest.mark.slow
def test_the_command_line_tells_as_it_is_asked_to(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as target:
        try:
            done = subprocess.run(
                [sys.executable, "-c", QUICKLY + "main()", f"pid:{target.pid}", "--log-json", "-", "--metrics-listen", "127.0.0.1:0",
                 "--trace-url", "https://traces.example/{trace_id}", "--json"],
                capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "SQUALL_STATE": str(tmp_path)},
            )  # fmt: skip
        finally:
            target.kill()
    import json

    said, *lines = done.stderr.splitlines()
    assert said.startswith("squall: metrics at http://127.0.0.1:")
    assert [json.loads(line)["kind"] for line in lines][-1] == "run-finished"
    trace_id = json.loads(lines[0])["trace_id"]
    report = json.loads(done.stdout)
    assert report["trace_id"] == trace_id
    assert report["trace_url"] == f"https://traces.example/{trace_id}"
    page = next(tmp_path.glob("runs/*/report.html")).read_text()
    assert f'href="https://traces.example/{trace_id}"' in page
