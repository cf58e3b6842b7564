"""The histogram of a service's answers, as Prometheus text and as OpenMetrics with exemplars."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from squall_resilience.metrics import MetricNameClash, Registry
from squall_resilience.server.durations import BUCKETS, SERIES_MOST, RequestDurations

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_answers_are_counted_in_their_buckets_by_route_and_status() -> None:
    registry = Registry()
    durations = RequestDurations("order", registry=registry)
    for seconds in (0.001, 0.005, 0.3, 0.31, 60.0):
        durations.observe("/orders", 200, seconds)
    durations.observe("/orders", 503, 0.001)
    (family,) = read_text(registry.render())
    assert family.name == "http_server_request_duration_seconds"
    assert family.type == "histogram"
    counts = {(one.labels["status"], one.labels["le"]): one.value for one in family.samples if "le" in one.labels}
    assert [counts["200", str(bound)] for bound in (0.005, 0.2, 0.3, 0.5, 10.0)] == [2, 2, 3, 4, 4]
    assert counts["200", "+Inf"] == 5
    assert counts["503", "+Inf"] == 1
    assert {one.labels["service"] for one in family.samples} == {"order"}
    total = next(one.value for one in family.samples if one.name.endswith("_sum") and one.labels["status"] == "200")
    assert total == pytest.approx(60.616)


def test_an_exemplar_leads_to_the_trace_that_is_recorded() -> None:
    registry = Registry()
    durations = RequestDurations("order", registry=registry)
    durations.observe("/orders", 200, 0.25, traceparent=TRACE)
    durations.observe("/orders", 200, 0.001, traceparent=TRACE[:-2] + "00")
    durations.observe("/orders", 200, 0.002, traceparent="nonsense")
    (family,) = read_openmetrics(registry.render(openmetrics=True))
    (found,) = [one for one in family.samples if one.exemplar]
    assert found.labels["le"] == "0.3"
    assert found.exemplar.labels == {"trace_id": TRACE.split("-")[1], "span_id": TRACE.split("-")[2]}
    assert found.exemplar.value == 0.25


def test_routes_that_nobody_bounds_are_bounded() -> None:
    registry = Registry()
    durations = RequestDurations("order", registry=registry)
    for number in range(SERIES_MOST * 2):
        durations.observe(f"/orders/{number}", 200, 0.001)
    (family,) = read_text(registry.render())
    counted = [one for one in family.samples if one.name.endswith("_count")]
    assert len(counted) == SERIES_MOST + 1
    assert next(one.value for one in counted if one.labels["route"] == "other") == SERIES_MOST


def test_one_service_has_one() -> None:
    registry = Registry()
    first = RequestDurations("order", registry=registry)
    with pytest.raises(MetricNameClash):
        RequestDurations("order", registry=registry)
    assert registry.find("http_server", "order") is first
    assert tuple(sorted(BUCKETS)) == BUCKETS


def test_threads_lose_nothing() -> None:
    registry = Registry()
    durations = RequestDurations("order", registry=registry)
    threads = [
        threading.Thread(target=lambda: [durations.observe("/", 200, 0.001) for _ in range(2_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (family,) = read_text(registry.render())
    assert next(one.value for one in family.samples if one.name.endswith("_count")) == 8_000
