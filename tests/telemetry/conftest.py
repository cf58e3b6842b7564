"""A service that remembers which trace each request belonged to, a collector that decodes OTLP, and runs on them."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

import squall.analysis.steady
from squall.engine import Outcome, Run
from squall.experiment.document import read_experiment
from squall.injectors import INJECTORS, Chooser, Host
from squall.recovery import State
from squall.telemetry.telling import Telling
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from squall.experiment.model import Experiment
    from squall.telemetry.wanted import Wanted


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """What the condition gives once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return found


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """An HTTP server on a loopback port that answers every request so."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815 - the name that http.server asks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass
class Service:
    """An HTTP service in this process."""

    port: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path and `traceparent` of each request."""

    @contextmanager
    def running(self) -> Iterator[Service]:
        with serving(self._answer) as self.port:
            yield self

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.seen.append((request.path, request.headers.get("traceparent", "")))
        status = 503 if request.path == "/broken" else 200
        request.send_response(status)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"ok")


@dataclass
class Collector:
    """Takes OTLP over HTTP as a collector does, and keeps what it was sent, decoded."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    """The latest of each name."""
    resources: dict[str, str] = field(default_factory=dict)
    encodings: set[str] = field(default_factory=set)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[Collector]:
        with serving(self._answer) as self.port:
            yield self

    def named(self, name: str) -> Span:
        """The one span of this name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def children(self, of: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_span_id == of.span_id]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.encodings.add(request.headers.get("Content-Encoding", ""))
        self.headers.append(dict(request.headers))
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert request.headers["Content-Type"] == "application/x-protobuf"
        self._keep(request.path, body)
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _keep(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources |= {one.key: one.value.string_value for one in resource.resource.attributes}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics"
            for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {one.name: one for scope in measured.scope_metrics for one in scope.metrics}


def document(service_port: int, route_port: int, duration: str) -> str:
    """An experiment whose route is slow for a while, with a probe and a load on it."""
    return f"""
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: slow}}
spec:
  targets: {{route: {{listen: "127.0.0.1:{route_port}", upstream: "127.0.0.1:{service_port}"}}}}
  steadyState:
    - {{name: home, http: {{url: "http://127.0.0.1:{route_port}/", timeout: 2s}}, every: 50ms, p95: 800ms, errorRate: 20%}}
    - {{name: own, http: {{url: "http://127.0.0.1:{service_port}/own", headers: {{traceparent: mine}}}}, every: 50ms, errorRate: 20%}}
  load: {{http: {{url: "http://127.0.0.1:{route_port}/load", timeout: 2s}}, rate: 40/s}}
  tolerate: {{p95: 1500ms, errorRate: 20%}}
  faults: [{{type: http.delay, delay: 900ms}}]
  duration: {duration}
  baseline: 800ms
  recovery: {{within: 2s}}
"""


@dataclass
class Told:
    """A run that was told."""

    outcome: Outcome
    said: list[str]
    ending_s: float
    """How long telling took beyond the run's end."""


@dataclass
class Teller:
    """Runs experiments, with whatever telemetry is asked for."""

    state: Path

    def run(self, experiment: Experiment, asked: Wanted, during: Callable[[Telling], None] = lambda _: None) -> Told:
        """One run; `during` is called in a thread of its own once it begins."""
        said: list[str] = []
        with Telling(asked, said.append) as telling:
            beside = threading.Thread(target=during, args=(telling,))
            beside.start()
            run = Run(
                experiment, state=State(self.state), chooser=Chooser(INJECTORS, Host.look()), listeners=[telling.hear],
                on_samples=[telling.take], tracing=asked.tracing,
            )  # fmt: skip
            outcome = asyncio.run(run.execute())
            ended = time.monotonic()
            telling.close()
            took = time.monotonic() - ended
            beside.join(30)
        return Told(outcome, said, took)


@contextmanager
def quick(folder: Path) -> Iterator[Teller]:
    """Runs of tenths of a second, with their files in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squall.analysis.steady, "STABLE_NS", 200_000_000)
        yield Teller(folder / "state")


def slow(service: Service, duration: str = "1s") -> Experiment:
    """The service behind a route that is slow for a while."""
    return read_experiment(document(service.port, free_port(), duration), "the test")
