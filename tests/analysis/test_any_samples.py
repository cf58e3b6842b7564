"""Whatever was measured, analysis answers: never an exception, never a number that JSON has no word for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.analysis import (
    AbortWatch,
    Facts,
    HealWatch,
    Measured,
    Timeline,
    ceiling_measures,
    check_steady_state,
    compare,
    judge,
)
from squall.events import Stamp, Stamped, encode
from squall.probes.samples import OUTCOMES, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.experiment.model import Experiment

SECOND = 1_000_000_000
MOST = 2**63 - 1
TIMES = st.one_of(st.integers(0, 100 * SECOND), st.integers(0, 100).map(lambda s: s * SECOND), st.integers(-MOST, MOST))
LATENCIES = st.one_of(st.sampled_from([0, 1, 300_000_000, MOST, -MOST]), st.integers(0, 20 * SECOND))
VALUES = st.floats(allow_nan=True, allow_infinity=True)
DETAILS = st.integers(0, 2**32 - 1)
SAMPLES = st.lists(
    st.builds(
        Sample,
        st.sampled_from(["load", "stock", "stock.rss"]),
        TIMES,
        LATENCIES,
        st.sampled_from(OUTCOMES),
        VALUES,
        st.integers(0, 2**32 - 1),
    ),
    max_size=200,
)
SPANS = st.lists(st.tuples(TIMES, TIMES), max_size=4).map(tuple)
TIMELINES = st.builds(Timeline, TIMES, SPANS, TIMES, TIMES)
USUAL = st.just(Timeline(0, ((10 * SECOND, 60 * SECOND),), 60 * SECOND, 95 * SECOND))

ANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _experiment(build: Callable[..., Experiment]) -> Experiment:
    stock = {
        "name": "stock",
        "process": {"command": "shop"},
        "values": {"rss": {"least": 1, "most": 100}},
        "errorRate": "0%",
    }
    return build(steadyState=[{"name": "orders", "http": {"url": "http://127.0.0.1:8080/orders"}}, stock])


def _series(samples: list[Sample]) -> dict[str, Series]:
    series = {name: Series(name) for name in ("load", "stock", "stock.rss")}
    for sample in samples:
        series[sample.series].add(sample)
    return series


@pytest.mark.slow
@ANY
@given(samples=SAMPLES, timeline=st.one_of(USUAL, TIMELINES))
def test_any_samples_and_times_are_judged(
    experiment: Callable[..., Experiment], samples: list[Sample], timeline: Timeline
) -> None:
    made, series = _experiment(experiment), _series(samples)
    verdict = judge(made, series, timeline, Facts())
    encode(Stamped(Stamp("r", 0, 0, 0), verdict))  # refuses NaN and infinity
    assert samples or verdict.verdict == "inconclusive"
    assert verdict.verdict != "passed" or all(f.outcome == "met" for f in verdict.findings)
    for finding in verdict.findings:
        for number in finding.numbers.values():
            assert number["low"] <= number["value"] <= number["high"]
    check_steady_state(made, series, timeline)
    run = Measured("a", series, timeline)
    assert not [d for d in compare(run, run).differences if d.value != 0 or d.change in ("better", "worse")]


@ANY
@given(samples=SAMPLES, now=TIMES, waiting=st.lists(TIMES, max_size=5))
def test_any_samples_are_watched(
    experiment: Callable[..., Experiment], samples: list[Sample], now: int, waiting: list[int]
) -> None:
    made = _experiment(experiment)
    ceiling, heal = AbortWatch(ceiling_measures(made), made.abort), HealWatch(made, 50 * SECOND)
    ceiling.fault_starts(SECOND)
    for sample in samples:
        ceiling.add(sample)
        heal.add(sample)
    decision = ceiling.check(now, {"load": waiting})
    assert decision is None or ceiling.distance() > 1
    watched = heal.check(now, {"load": waiting})
    assert not (watched.state == "healed" and watched.healed_ns is None)


@ANY
@given(outcome=st.sampled_from(OUTCOMES), latency=LATENCIES, rate=st.integers(1, 60))
def test_runs_in_which_all_samples_are_equal(
    experiment: Callable[..., Experiment], outcome: str, latency: int, rate: int
) -> None:
    """All well, all failed, all hung: told right, and a pass only for what is well."""
    series = Series("load")
    for number in range(95 * rate):
        series.add(Sample("load", number * SECOND // rate, latency, outcome))  # type: ignore[arg-type]
    timeline = Timeline(0, ((10 * SECOND, 60 * SECOND),), 60 * SECOND, 95 * SECOND)
    verdict = judge(experiment(), {"load": series}, timeline)
    well = outcome == "ok" and latency <= 300_000_000
    assert (verdict.verdict == "passed") == (well and rate * 35 >= 183)
    assert outcome == "value" or (verdict.verdict == "failed") == (not well)
