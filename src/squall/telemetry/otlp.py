"""Spans and numbers to a collector, by OTLP over HTTP (protobuf), with OpenTelemetry's own exporters.

Headers, certificates, compression and time-outs are theirs to read from OTEL_EXPORTER_OTLP_*. A collector that is down
or hangs costs nothing but its own thread: what it does not take in time is dropped, counted, and said once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from squall import __version__
from squall.telemetry.numbers import BUCKETS_S

if TYPE_CHECKING:
    from squall.telemetry import numbers as own
    from squall.telemetry.numbers import Numbers
    from squall.telemetry.spans import Span

__all__ = ["Exporter"]

SPANS_WAITING_MOST = 5_000
_BATCH = 500
_SPANS_EVERY_S = 1.0
_METRICS_EVERY_S = 5.0
_SCOPE = InstrumentationScope("squall", __version__)
_SCHEMA = ""


class Exporter:
    """Sends from a thread of its own.

    Args:
        endpoint: The collector's base address, http://127.0.0.1:4318; None: what the environment says.
        numbers: Sent every 5 s, and at the end.
        traces: Whether spans are sent.
        metrics: Whether numbers are sent.
    """

    def __init__(self, endpoint: str | None, numbers: Numbers, *, traces: bool = True, metrics: bool = True) -> None:
        self._numbers, self._trouble = numbers, _Trouble()
        base = endpoint.rstrip("/") if endpoint else None
        self._spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces" if base else None) if traces else None
        self._metrics = OTLPMetricExporter(endpoint=f"{base}/v1/metrics" if base else None) if metrics else None
        self._resource = _resource()
        self._waiting: deque[Span] = deque()
        self._began_ns = time.time_ns()
        self._wake, self._ending = threading.Event(), False
        self.dropped = 0
        """Spans that nobody took."""
        self._failed = ""
        self._thread = threading.Thread(target=self._work, name="squall-otlp", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why something could not be sent, the first reason; empty where everything could."""
        return self._failed and (self._trouble.first or self._failed)

    def add(self, span: Span) -> None:
        """Send this one with the next batch; never waits."""
        if self._spans is None:
            return
        if len(self._waiting) >= SPANS_WAITING_MOST:
            self.dropped += 1
            self._failed = self._failed or "the collector does not keep up"
            return
        self._waiting.append(span)

    def close(self, deadline: float) -> None:
        """Send what is left, at most until `deadline` (time.monotonic)."""
        self._ending = True
        self._wake.set()
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self.dropped += len(self._waiting)
            self._failed = self._failed or "the collector did not answer in time"
        self._trouble.stop()

    def _work(self) -> None:
        metrics_at = time.monotonic() + _METRICS_EVERY_S
        while not self._ending:
            self._wake.wait(_SPANS_EVERY_S)
            self._send_spans()
            if time.monotonic() >= metrics_at and not self._ending:
                self._send_metrics()
                metrics_at = time.monotonic() + _METRICS_EVERY_S
        self._send_metrics()
        self._send_spans()  # what was added while the last ones were under way
        for exporter in (self._spans, self._metrics):
            if exporter is not None:
                exporter.shutdown()

    def _send_spans(self) -> None:
        while self._spans is not None and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                sent = self._spans.export([_readable(one, self._resource) for one in batch]) is SpanExportResult.SUCCESS
            except Exception as error:  # noqa: BLE001 - whatever a collector does to the exporter, the run goes on
                sent, self._failed = False, self._failed or str(error)
            if not sent:
                self.dropped += len(batch)
                self._failed = self._failed or "the collector took no spans"
                return

    def _send_metrics(self) -> None:
        if self._metrics is None:
            return
        try:
            sent = self._metrics.export(self._data()) is MetricExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - see _send_spans
            sent, self._failed = False, self._failed or str(error)
        if not sent:
            self._failed = self._failed or "the collector took no metrics"

    def _data(self) -> MetricsData:
        now_ns = time.time_ns()
        made = [
            Metric(family.name.removesuffix("_total"), family.help, family.unit, self._points(family, series, now_ns))
            for family, series in self._numbers.values()
        ]
        for family, series in self._numbers.histograms():
            points = [self._histogram(family, labels, one, now_ns) for labels, one in series.items()]
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
            made.append(Metric(family.name, family.help, family.unit, data))
        return MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(_SCOPE, made, _SCHEMA)], _SCHEMA)])

    def _points(self, family: own.Family, series: dict[own.Labels, float], now_ns: int) -> Sum | Gauge:
        counted = family.kind == "counter"
        points = [
            NumberDataPoint(
                dict(zip(family.labels, labels, strict=True)), self._began_ns if counted else 0, now_ns, float(value)
            )
            for labels, value in series.items()
        ]
        return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if counted else Gauge(points)

    def _histogram(self, family: own.Family, labels: own.Labels, one: own.Histogram, now_ns: int) -> HistogramDataPoint:
        exemplars = [
            Exemplar({}, each.value, each.wall_ns, int(each.span_id, 16), int(each.trace_id, 16))
            for each in one.exemplars.values()
        ]
        return HistogramDataPoint(
            attributes=dict(zip(family.labels, labels, strict=True)), start_time_unix_nano=self._began_ns,
            time_unix_nano=now_ns, count=sum(one.counts), sum=one.total, bucket_counts=one.counts,
            explicit_bounds=BUCKETS_S, min=one.least, max=one.most, exemplars=exemplars,
        )  # fmt: skip


def _resource() -> Resource:
    """What the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES), over what Squall is."""
    found = Resource.create({"service.version": __version__})
    name = str(found.attributes.get("service.name", ""))
    return found.merge(Resource({"service.name": "squall"})) if name.startswith("unknown_service") else found


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    trace_id, sampled = int(span.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=False) if span.parent_id else None
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=sampled),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        events=[Event(one.name, one.attributes, one.wall_ns) for one in span.moments],
        kind=SpanKind.CLIENT if span.kind == "client" else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )


class _Trouble(logging.Handler):
    """Takes what the exporters log, which would come again and again between the lines of a run's progress."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""
        self._logger = logging.getLogger("opentelemetry.exporter")
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first one."""
        self.first = self.first or record.getMessage()[:500]

    def stop(self) -> None:
        """Let them log again."""
        self._logger.removeHandler(self)
        self._logger.propagate = True
