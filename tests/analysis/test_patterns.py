"""What is expected of breakers, retries and fallbacks, held against what a service said of them."""

from __future__ import annotations

import pytest

from squall.analysis import ClosingWatch, Timeline, judge
from squall.errors import InputError
from squall.experiment.document import dump_experiment, read_experiment
from squall.experiment.model import Experiment
from squall.probes.samples import OUTCOMES, Sample, Series

SECOND = 1_000_000_000
ON, OFF, END = 10 * SECOND, 70 * SECOND, 130 * SECOND
TIMELINE = Timeline(0, ((ON, OFF),), OFF, END)
URL = "http://127.0.0.1:8082/metrics"
NAME = "patterns-inventory"
VALUE = OUTCOMES.index("value")


def experiment(*expect: dict[str, object]) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "patterns", "duration": "60s", "targets": {"process": {"command": "shop-inventory"}},
            "faults": [{"type": "process.pause"}], "expect": list(expect),
        }
    )  # fmt: skip


def gauge(value: str, *points: tuple[float, float]) -> dict[str, Series]:
    series = Series(f"{NAME}.{value}")
    for at, number in points:
        for column, item in (
            (series.time_ns, round(at * SECOND)), (series.latency_ns, 0), (series.value, number),
            (series.outcome, VALUE), (series.detail, 0),
        ):  # fmt: skip
            column.append(item)  # type: ignore[arg-type]
    return {series.name: series}


def findings(
    expect: dict[str, object], *series: dict[str, Series], timeline: Timeline = TIMELINE
) -> list[tuple[str, str]]:
    together = {name: one for each in series for name, one in each.items()}
    found = judge(experiment(expect), together, timeline).findings
    return [(one.outcome, one.reason) for one in found]


def breaker(**bounds: object) -> dict[str, object]:
    return {"breaker": {"metrics": URL, "dependency": "inventory", **bounds}}


def every(step: float, start: float, end: float, number: float) -> list[tuple[float, float]]:
    return [(start + step * place, number) for place in range(round((end - start) / step))]


def test_a_breaker_that_opens_and_closes_in_time_is_met() -> None:
    states = [*every(0.5, 0, 40, 0), *every(0.5, 40, 75, 1), *every(0.5, 75, 78, 0.5), *every(0.5, 78, 130, 0)]
    expect = breaker(opens={"within": "45s"}, closes={"within": "60s"})
    opened, closed = findings(expect, gauge("open", *states), gauge("opened", (0, 0), (40, 1)))
    assert opened == ("met", "it opened after 30s")
    assert closed == ("met", "it was closed 8s after the fault")


def test_an_opening_between_two_samples_is_seen_by_its_count() -> None:
    counts = [*every(0.5, 0, 30, 3), *every(0.5, 30, 130, 4)]
    ((outcome, reason),) = findings(
        breaker(opens={"within": "45s"}), gauge("open", *every(0.5, 0, 130, 0)), gauge("opened", *counts)
    )
    assert (outcome, reason) == ("met", "it opened after 20s")


@pytest.mark.parametrize(
    ("states", "outcome", "said"),
    [
        (every(0.5, 0, 130, 0), "broken", "it did not open in 2m"),
        ([*every(0.5, 0, 60, 0), *every(0.5, 60, 130, 1)], "broken", "it opened after 50s"),
        (every(0.5, 0, 130, 1), "unclear", "it was open before the fault began"),
        (every(0.5, 0, 9, 0), "unclear", "no state of it was seen: its metrics were never read"),
    ],
)
def test_a_breaker_that_does_not_open_in_time_is_not_met(
    states: list[tuple[float, float]], outcome: str, said: str
) -> None:
    assert findings(breaker(opens={"within": "45s"}), gauge("open", *states)) == [(outcome, said)]


def test_a_fault_shorter_than_the_bound_cannot_tell_that_a_breaker_stays_closed() -> None:
    short = Timeline(0, ((ON, ON + 5 * SECOND),), ON + 5 * SECOND, ON + 20 * SECOND)
    ((outcome, reason),) = findings(
        breaker(opens={"within": "45s"}), gauge("open", *every(0.5, 0, 30, 0)), timeline=short
    )
    assert outcome == "unclear"
    assert "watched for 20s only" in reason


@pytest.mark.parametrize(
    ("states", "outcome", "said"),
    [
        ([*every(0.5, 0, 30, 0), *every(0.5, 30, 130, 1)], "broken", "it had not closed 1m after the fault"),
        ([*every(0.5, 0, 30, 0), *every(0.5, 30, 120, 1), *every(0.5, 120, 130, 0)], "met", "it was closed 50s after"),
        (
            [*every(0.5, 0, 30, 0), *every(0.5, 30, 75, 1), *every(0.5, 75, 80, 0), *every(0.5, 80, 130, 0.5)],
            "broken",
            "it had not closed",
        ),
        (every(0.5, 0, 130, 0), "unclear", "it was never open"),
    ],
)
def test_a_breaker_must_close_and_stay_closed(states: list[tuple[float, float]], outcome: str, said: str) -> None:
    ((found, reason),) = findings(breaker(closes={"within": "60s"}), gauge("open", *states))
    assert found == outcome
    assert reason.startswith(said)


def test_six_healthy_minutes_before_the_fault_make_no_difference() -> None:
    late = Timeline(0, ((370 * SECOND, 430 * SECOND),), 430 * SECOND, 490 * SECOND)
    states = [*every(0.5, 0, 400, 0), *every(0.5, 400, 440, 1), *every(0.5, 440, 490, 0)]
    expect = breaker(opens={"within": "45s"}, closes={"within": "60s"})
    opened, closed = findings(expect, gauge("open", *states), timeline=late)
    assert opened == ("met", "it opened after 30s")
    assert closed == ("met", "it was closed 10s after the fault")


def counter(start: float, per_second: float) -> list[tuple[float, float]]:
    return [(at, start + per_second * at) for at in range(130)]


@pytest.mark.parametrize(("bound", "outcome"), [("<=1.2", "met"), (1.2, "met"), ("<= 1.05", "broken")])
def test_the_amplification_of_retries_is_what_the_fault_s_time_adds(bound: object, outcome: str) -> None:
    expect = {"retries": {"metrics": URL, "dependency": "inventory", "amplification": bound}}
    attempts = [(at, 1000 + 50 * at + (0.1 * 50) * max(0, min(at, 70) - 10)) for at in range(130)]
    ((found, reason),) = findings(expect, gauge("retryCalls", *counter(900, 50)), gauge("retryAttempts", *attempts))
    assert found == outcome
    assert ": 1.1" in reason


def test_counts_of_a_service_that_restarts_go_on() -> None:
    expect = {"retries": {"metrics": URL, "dependency": "inventory", "amplification": 1.2}}
    restarted = [(at, 10.0 * at if at < 40 else 10.0 * (at - 40)) for at in range(130)]
    ((found, reason),) = findings(expect, gauge("retryCalls", *restarted), gauge("retryAttempts", *restarted))
    assert found == "met"
    assert reason.startswith("600 were sent for 600 calls")


@pytest.mark.parametrize(("unanswered", "outcome"), [(0, "met"), (1, "met"), (10, "broken")])
def test_the_rate_of_fallbacks_is_of_the_calls_that_were_not_answered(unanswered: float, outcome: str) -> None:
    expect = {"fallbacks": {"metrics": URL, "dependency": "inventory", "rate": ">=90%"}}
    ((found, _),) = findings(
        expect, gauge("fellBack", *counter(0, 40)), gauge("unanswered", *counter(5, unanswered)),
        gauge("primary", *counter(0, 10)),
    )  # fmt: skip
    assert found == outcome


def test_a_fallback_that_was_never_needed_proves_nothing() -> None:
    expect = {"fallbacks": {"metrics": URL, "dependency": "inventory", "rate": ">=90%"}}
    ((found, reason),) = findings(
        expect,
        gauge("fellBack", *counter(3, 0)),
        gauge("unanswered", *counter(0, 0)),
        gauge("primary", *counter(0, 10)),
    )
    assert found == "unclear"
    assert "at least 20 are needed" in reason


def test_the_watch_goes_on_until_each_breaker_is_closed_or_late() -> None:
    watch = ClosingWatch(experiment(breaker(closes={"within": "60s"})), OFF)
    assert not watch.done(OFF + SECOND)
    watch.add(Sample(f"{NAME}.open", OFF - 1, 0, "value", 0.0))
    watch.add(Sample(f"{NAME}.open", OFF + SECOND, 0, "value", 0.5))
    assert not watch.done(OFF + 2 * SECOND)
    assert watch.done(OFF + 60 * SECOND)
    watch.add(Sample(f"{NAME}.open", OFF + 3 * SECOND, 0, "value", 0.0))
    assert watch.done(OFF + 3 * SECOND)
    assert ClosingWatch(experiment(), OFF).done(OFF)


DOCUMENT = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {name: patterns}
spec:
  targets: {process: {command: shop-inventory}}
  faults: [{type: process.pause}]
  duration: 60s
  expect:
    - breaker: {metrics: "http://127.0.0.1:8082/metrics", dependency: inventory, opens: {within: 45s}, closes: {within: 60s}}
    - retries: {metrics: "http://127.0.0.1:8082/metrics", dependency: inventory, amplification: <=1.2}
    - fallbacks: {metrics: "http://127.0.0.1:8082/metrics", dependency: inventory, rate: ">=90%"}
"""


def test_a_document_says_it_and_is_written_back_the_same() -> None:
    read = read_experiment(DOCUMENT)
    assert [one.kind for one in read.expect] == ["breaker", "retries", "fallbacks"]
    assert read_experiment(dump_experiment(read)) == read


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<=1.2", "0.5", "1 (no call is sent twice) to 1000 is allowed"),
        ('">=90%"', '">=190%"', "more than 100%"),
        ("opens: {within: 45s}, closes: {within: 60s}", "", "give `opens`, `closes` or both"),
        ("rate:", "ratio:", "ratio"),
        ("dependency: inventory, rate", "dependency: '', rate", "dependency"),
    ],
)
def test_a_wrong_expectation_is_refused_with_what_is_allowed(old: str, new: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read_experiment(DOCUMENT.replace(old, new))
    assert said in str(refused.value)
