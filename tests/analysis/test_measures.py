"""What counts as bad: of requests that failed, were given up, were refused at once; and which thresholds there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.analysis import Measure, ceiling_measures, measures_of
from squall.analysis.columns import Columns, Latencies
from squall.analysis.quantiles import quantile_interval
from squall.experiment.series import load_is_shared, series_of
from squall.probes.samples import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from squall.experiment.model import Experiment
    from squall.probes.samples import Outcome

MS = 1_000_000
URL = "http://127.0.0.1:8080/orders"
P95 = Measure("orders", "orders", "p95", 0.05, limit=300 * MS)
ERRORS = Measure("orders", "orders", "errorRate", 0.005)
RSS = Measure("stock", "stock.rss", "rss", 0.05, least=10, most=20, state=True)


def _series(samples: Iterable[Sample]) -> Series:
    series = Series("orders")
    for sample in samples:
        series.add(sample)
    return series


@pytest.mark.parametrize(
    ("outcome", "latency_ms", "slow", "failed"),
    [
        ("ok", 300, False, False),
        ("ok", 301, True, False),
        ("timeout", 100, True, True),
        ("unsent", 0, True, True),
        ("error", 1, None, True),
        ("refused", 1, None, True),
        ("value", 0, None, None),
    ],
)
def test_what_is_bad(outcome: Outcome, latency_ms: int, *, slow: bool | None, failed: bool | None) -> None:
    sample = Sample("orders", 5, latency_ms * MS, outcome)
    columns = Columns(_series([sample]))
    for measure, bad in ((P95, slow), (ERRORS, failed)):
        assert measure.is_bad(sample) is bad
        assert list(measure.marks(columns).bad) == ([] if bad is None else [bad])


def test_a_gauge_is_bad_outside_its_range_and_no_number_is_no_sample() -> None:
    values = [9.9, 10.0, 20.0, 20.1, float("nan"), float("inf")]
    samples = [Sample("stock.rss", at, 0, "value", value) for at, value in enumerate(values)]
    assert [RSS.is_bad(sample) for sample in samples] == [True, False, False, True, None, None]
    assert list(RSS.marks(Columns(_series(samples))).bad) == [1, 0, 0, 1]


def test_p95_does_not_look_better_because_requests_timed_out() -> None:
    """Ten of a hundred hang: given up after 200 ms, less than the slowest answer, they still stand behind all answers."""
    answered = [Sample("orders", at, (100 + 3 * at) * MS, "ok") for at in range(90)]
    hung = [Sample("orders", at, 200 * MS, "timeout") for at in range(90, 100)]
    columns = Columns(_series(answered + hung))
    interval = quantile_interval(columns.latencies, [(0, 100)], 0.95)
    assert interval is not None
    assert interval.open_above
    assert interval.value == 200 * MS, "what is known of it: at least the time-out"
    assert sum(P95.marks(columns).bad) == 10 + sum(100 + 3 * at > 300 for at in range(90))


def test_a_refusal_is_no_quick_answer() -> None:
    answered = [Sample("orders", at, 400 * MS, "ok") for at in range(50)]
    refused = [Sample("orders", at, 1 * MS, "refused") for at in range(50, 1000)]
    interval = quantile_interval(Columns(_series(answered + refused)).latencies, [(0, 1000)], 0.5)
    assert interval is not None
    assert interval.value == 400 * MS


def test_the_order_of_arrival_does_not_matter() -> None:
    samples = [Sample("orders", at, (at * 7 % 400) * MS, "timeout" if at % 9 == 0 else "ok") for at in range(200)]
    forward, backward = Columns(_series(samples)), Columns(_series(reversed(samples)))
    for measure in (P95, ERRORS):
        assert measure.marks(forward).bad == measure.marks(backward).bad
        assert measure.moments(forward, 0, 200) == measure.moments(backward, 0, 200)


def test_badness_shows_itself_when_it_can_be_known() -> None:
    """A request of 5 s is known to be slow after 300 ms; a failure is known at its end."""
    columns = Columns(_series([Sample("orders", 0, 5000 * MS, "ok"), Sample("orders", 1, 900 * MS, "error")]))
    assert P95.moments(columns, 0, 10) == [300 * MS]
    assert ERRORS.moments(columns, 0, 10) == [1 + 900 * MS]


def test_negative_and_huge_latencies_keep_their_places() -> None:
    columns = Columns(
        _series([Sample("orders", 0, -5, "ok"), Sample("orders", 1, 2**63 - 1, "ok"), Sample("orders", 2, 0, "unsent")])
    )
    shown = [Latencies.shown(coded) for coded in sorted(columns.latencies.coded)]
    assert shown == [(0, False), (2**62 - 1, False), (0, True)]


def test_an_expectation_with_the_loads_request_is_measured_by_the_load(experiment: Callable[..., Experiment]) -> None:
    shared = experiment()
    assert series_of(shared) == {"orders": "load"}
    assert load_is_shared(shared)
    assert [(m.expectation, m.series, m.what) for m in measures_of(shared)] == [
        ("orders", "load", "errorRate"),
        ("orders", "load", "p95"),
    ]


def test_a_load_that_no_expectation_shares_is_judged_by_the_defaults(experiment: Callable[..., Experiment]) -> None:
    apart = experiment(steadyState=[{"name": "pay", "tcp": "127.0.0.1:9", "p95": "50ms", "errorRate": "1%"}])
    assert series_of(apart) == {"pay": "pay"}
    assert [m.text for m in measures_of(apart)] == [
        "errorRate <= 1%", "p95 <= 50ms", "errorRate <= 0.5%", "p95 <= 300ms",
    ]  # fmt: skip
    assert {m.series for m in measures_of(apart, tolerated=True)} == {"pay", "load"}
    assert {(m.series, m.text) for m in ceiling_measures(apart)} == {
        ("pay", "errorRate <= 50%"), ("pay", "p95 <= 5s"), ("load", "errorRate <= 50%"), ("load", "p95 <= 5s"),
    }  # fmt: skip


def test_what_looks_and_sends_nothing_is_not_tolerated_but_has_a_ceiling(experiment: Callable[..., Experiment]) -> None:
    looks = experiment(
        load=None,
        steadyState=[{"name": "stock", "process": {"command": "shop"}, "values": {"rss": {"most": 1e9}}}],
    )
    alive, rss = measures_of(looks)
    assert (alive.text, alive.state) == ("errorRate <= 0.5%", True)
    assert (rss.text, rss.series, rss.state) == ("rss <= 1e+09", "stock.rss", True)
    assert measures_of(looks, tolerated=True) == ()
    assert [(m.series, m.text, m.state) for m in ceiling_measures(looks)] == [("stock", "errorRate <= 50%", True)]


def test_a_limit_that_cannot_be_exceeded_is_not_judged(experiment: Callable[..., Experiment]) -> None:
    limits = {"p95": "1h", "errorRate": "100%"}
    anything = experiment(tolerate=limits, abort=limits)
    assert measures_of(anything, tolerated=True) == ceiling_measures(anything) == ()
