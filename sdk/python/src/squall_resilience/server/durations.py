"""How long a service takes to answer: the histogram that boards and alerts read, with exemplars that lead to traces.

    durations = RequestDurations("order")
    ...
    durations.observe("/orders", answer.status, seconds, traceparent=request.headers.get("traceparent", ""))

`route` is the pattern (`/orders/{id}`), never the path as it came: each value is a series of its own.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from time import time
from typing import TYPE_CHECKING

from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BUCKETS", "RequestDurations"]

NAME = "http_server_request_duration_seconds"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 10.0)
"""Upper bounds in seconds, when nobody says others."""
SERIES_MOST = 500
_HELP = "From a request's arrival to the end of its answer."
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f](?P<low>[0-9a-f])")

Exemplar = tuple[tuple[tuple[str, str], ...], float, float]


class _Histogram:
    """The answers of one route with one status."""

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.total = 0.0


class RequestDurations:
    """Counts the answers of one service by route and status. Safe from any thread.

    With more than 500 routes and statuses, what is new counts as route `other`. Raises MetricNameClash while another one
    of the same service is in the registry.
    """

    kind = "http_server"

    def __init__(
        self, service: str, *, buckets: Sequence[float] = BUCKETS, registry: Registry | None = process_registry
    ) -> None:
        self.dependency = service
        self._bounds = tuple(sorted(buckets))
        self._series: dict[tuple[str, str], _Histogram] = {}
        self._lock = threading.Lock()
        if registry is not None:
            registry.add(self)

    def observe(self, route: str, status: int, seconds: float, *, traceparent: str = "") -> None:
        """Count one answer; a `traceparent` whose trace is recorded becomes its bucket's exemplar."""
        bucket = bisect_left(self._bounds, seconds)
        exemplar = _exemplar(traceparent, seconds) if traceparent else None
        with self._lock:
            key = (route, str(status))
            if key not in self._series:
                if len(self._series) >= SERIES_MOST:
                    key = ("other", str(status))
                self._series.setdefault(key, _Histogram(len(self._bounds)))
            one = self._series[key]
            one.counts[bucket] += 1
            one.total += seconds
            if exemplar is not None:
                one.exemplars[bucket] = exemplar

    def samples(self) -> Iterator[Sample]:
        """Buckets, sums and counts."""
        with self._lock:
            read = [
                (key, list(one.counts), dict(one.exemplars), one.total) for key, one in sorted(self._series.items())
            ]
        for (route, status), counts, exemplars, total in read:
            labels = (("service", self.dependency), ("route", route), ("status", status))
            below = 0
            for number, (bound, count) in enumerate(zip((*self._bounds, float("inf")), counts, strict=True)):
                below += count
                le = "+Inf" if bound == float("inf") else str(float(bound))
                yield Sample(
                    f"{NAME}_bucket", below, (*labels, ("le", le)), "histogram", _HELP, NAME, exemplars.get(number)
                )
            yield Sample(f"{NAME}_sum", total, labels, "histogram", _HELP, NAME)
            yield Sample(f"{NAME}_count", below, labels, "histogram", _HELP, NAME)


def _exemplar(traceparent: str, seconds: float) -> Exemplar | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or not int(found["low"], 16) & 1:
        return None
    return (("trace_id", found[1]), ("span_id", found[2])), seconds, time()
