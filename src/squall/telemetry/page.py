"""`/metrics` of a run: Prometheus text, or OpenMetrics with exemplars for who asks for it, by prometheus-client."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar

from squall.errors import InputError
from squall.telemetry.numbers import BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from squall.telemetry import numbers as own
    from squall.telemetry.numbers import Numbers

__all__ = ["Page"]

_LINES_WAITING = 16
_POLL_S = 0.1
"""How long closing may have to wait."""


class Page:
    """Serves the numbers until it is closed, from threads that end with the process.

    Raises InputError where the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, numbers: Numbers) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Shown(numbers))
        page = self

        class Answering(BaseHTTPRequestHandler):
            timeout = 10.0

            def do_GET(self) -> None:
                page.answer(self, registry)

            def log_message(self, *_: object) -> None:
                """Nothing of it belongs between the lines of a run's progress."""

        class Serving(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = _LINES_WAITING

            def handle_error(self, *_: object) -> None:
                """A scraper that went away is not the run's business."""

        try:
            self._server = Serving((host, port), Answering)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--metrics-listen {host}:{port} cannot be listened on: {reason}") from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._scraped = threading.Condition()
        self._scrapes = 0
        self._ending = self._saw_the_end = False
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="squall-metrics", daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, registry: CollectorRegistry) -> None:
        """One request."""
        if request.path.partition("?")[0] != "/metrics":
            request.send_error(404, "only /metrics is here")
            return
        at_the_end = self._ending
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        content = encoder(registry)
        with suppress(OSError):
            request.send_response(200)
            request.send_header("Content-Type", content_type)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
        with self._scraped:
            self._scrapes += 1
            self._saw_the_end = self._saw_the_end or at_the_end
            self._scraped.notify_all()

    def close(self, deadline: float) -> None:
        """Let whoever scraped so far see the end too, at most until `deadline` (time.monotonic); then serve no more."""
        with self._scraped:
            self._ending = True
            if self._scrapes:
                self._scraped.wait_for(lambda: self._saw_the_end, max(deadline - time.monotonic(), 0.0))
        self._server.shutdown()
        self._server.server_close()


class _Shown(Collector):
    """The numbers as prometheus-client knows them."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """Every family, as it is now."""
        for family, series in self._numbers.values():
            of = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            shown = of(family.name, family.help, labels=family.labels)
            for labels, value in series.items():
                shown.add_metric(labels, value)
            yield shown
        for family, histograms in self._numbers.histograms():
            buckets = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, one in histograms.items():
                buckets.add_metric(labels, list(_buckets(one)), one.total)
            yield buckets


def _buckets(one: own.Histogram) -> Iterator[tuple[str, float] | tuple[str, float, Exemplar]]:
    total = 0
    for number, (bound, count) in enumerate(zip((*BUCKETS_S, float("inf")), one.counts, strict=True)):
        total += count
        found = one.exemplars.get(number)
        shown = "+Inf" if bound == float("inf") else str(bound)
        if found is None:
            yield shown, total
            continue
        leads_to = {"trace_id": found.trace_id, "span_id": found.span_id}
        yield shown, total, Exemplar(leads_to, found.value, found.wall_ns / 1e9)
