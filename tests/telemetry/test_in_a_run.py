"""A run, seen from outside: by a collector, by a real Prometheus, in log lines, and from the service that it asks."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from squall.events import RunStarted, decode
from squall.telemetry.telling import Telling
from squall.telemetry.wanted import wanted
from tests.telemetry.conftest import Collector, Service, Told, quick, slow

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.slow

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Seen:
    """What was seen of one run that everybody was told of."""

    told: Told
    service: Service
    collector: Collector
    lines: str


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("seen")
    log = folder / "squall.log"
    with pytest.MonkeyPatch.context() as patch, Service().running() as service, Collector().running() as collector:
        patch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=shop")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        asked = wanted(otlp=collector.url, lines=str(log), environment={"TRACEPARENT": CALLER})
        with quick(folder) as teller:
            told = teller.run(slow(service), asked)
        yield Seen(told, service, collector, log.read_text())


def hexed(span_id: bytes) -> str:
    return span_id.hex()


def test_a_run_is_one_trace_of_its_callers(seen: Seen) -> None:
    told, collector = seen.told, seen.collector
    assert told.said == []
    assert collector.encodings == {"gzip"}
    assert {headers["x-team"] for headers in collector.headers} == {"shop"}
    assert collector.resources["service.name"] == "squall"
    assert collector.resources["deployment.environment"] == "test"

    assert {hexed(span.trace_id) for span in collector.spans} == {CALLER.split("-")[1]}
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)
    run = collector.named("run slow")
    assert hexed(run.parent_span_id) == CALLER.split("-")[2]
    about = {one.key: one.value for one in run.attributes}
    assert about["squall.verdict"].string_value == told.outcome.verdict
    assert {event.name for event in run.events} >= {"steady-state-checked"}
    below = [span.name for span in collector.children(run)]
    stages = ["stage define", "stage inject", "stage monitor", "stage analyse", "stage recover"]
    assert sorted(below) == sorted([*stages, "fault http.delay", "probe home", "probe own", "probe load"])
    for span in collector.spans:
        assert run.start_time_unix_nano - 10**9 <= span.start_time_unix_nano <= span.end_time_unix_nano

    fault = collector.named("fault http.delay")
    assert 0.9e9 <= fault.end_time_unix_nano - fault.start_time_unix_nano <= 3e9
    hits = {one.key: one.value.int_value for one in fault.attributes if one.key.startswith("squall.hits.")}
    assert hits["squall.hits.requests"] > 0
    assert "action-undone" in {event.name for event in fault.events}


def test_the_service_sees_the_spans_that_the_collector_has(seen: Seen) -> None:
    told, service, collector = seen.told, seen.service, seen.collector
    started = decode(told.outcome.run.events.read_text().splitlines()[0]).event
    assert isinstance(started, RunStarted)
    trace_id = started.trace.split("-")[1]
    by_path: dict[str, list[list[str]]] = {}
    for path, traceparent in service.seen:
        by_path.setdefault(path, []).append(traceparent.split("-"))
    assert {words[0] for words in by_path["/own"]} == {"mine"}, "a document's own header stays"
    for path, name in (("/", "probe home"), ("/load", "probe load")):
        seen = by_path[path]
        assert {words[1] for words in seen} == {trace_id}
        assert len({words[2] for words in seen}) == len(seen), "each request is a span of its own"
        sent = {hexed(span.span_id): span for span in collector.children(collector.named(name))}
        recorded = {words[2] for words in seen if words[3] == "01"}
        assert set(sent) <= recorded
        assert len(recorded - set(sent)) <= 1, "what was under way at the end has no sample"
        assert recorded
        assert len(recorded) < len(seen) or path == "/", "of 40 a second about 10 are recorded"
        slowest = max(span.end_time_unix_nano - span.start_time_unix_nano for span in sent.values())
        assert slowest > 0.2e9 or path == "/", "the slow ones are among them, where there are many"


def test_a_collector_has_the_numbers_with_exemplars(seen: Seen) -> None:
    collector = seen.collector
    spans = {span.span_id for span in collector.spans}
    latency = collector.metrics["squall_probe_latency_seconds"]
    assert latency.unit == "s"
    exemplars = [one for point in latency.histogram.data_points for one in point.exemplars]
    assert exemplars
    assert {one.span_id for one in exemplars} <= spans
    for point in latency.histogram.data_points:
        assert point.count == sum(point.bucket_counts)
        assert point.min <= point.sum / point.count <= point.max
    counted = collector.metrics["squall_fault_hits"].sum
    assert counted.is_monotonic
    assert {one.key for one in counted.data_points[0].attributes} == {"experiment", "fault", "type", "counter"}
    active = collector.metrics["squall_fault_active"].gauge.data_points
    assert [point.as_double for point in active] == [0.0], "the run is over"
    assert collector.metrics["squall_run_verdict"].gauge.data_points[0].as_double == 1.0


def test_log_lines_are_as_loki_takes_them(seen: Seen) -> None:
    told = seen.told
    lines = [json.loads(line) for line in seen.lines.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line["ts"]) for line in lines)
    assert [line["ts"] for line in lines] == sorted(line["ts"] for line in lines)
    assert {line["level"] for line in lines} <= {"debug", "info", "warn", "error"}
    assert {line["run"] for line in lines} == {told.outcome.run.id}
    assert len({line["trace_id"] for line in lines}) == 1
    assert all(re.fullmatch(r"[0-9a-f]{16}", line["span_id"]) for line in lines)
    assert all(line["msg"] for line in lines)
    by_kind = {line["kind"]: line for line in lines}
    assert by_kind["fault-started"]["span_id"] == by_kind["fault-ended"]["span_id"]
    assert by_kind["fault-started"]["level"] == "warn"
    assert by_kind["verdict-reached"]["verdict"] == told.outcome.verdict
    assert "probe-window" not in by_kind
    assert max(map(len, seen.lines.splitlines())) < 4096


def test_who_asks_for_text_gets_text() -> None:
    with Telling(wanted(listen="127.0.0.1:0", hold_s=0, environment={}), lambda _: None) as telling:
        with urllib.request.urlopen(f"http://{telling.address}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            assert b"EOF" not in answer.read()
        asked = urllib.request.Request(
            f"http://{telling.address}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(asked, timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert answer.read().endswith(b"# EOF\n")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{telling.address}/", timeout=5)
