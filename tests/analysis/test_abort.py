"""The ceiling, watched as samples arrive."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from squall.analysis import AbortWatch, ceiling_measures
from squall.probes.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from conftest import System

    from squall.analysis import AbortDecision
    from squall.experiment.model import Experiment

SECOND = 1_000_000_000


def _watch(experiment: Experiment) -> AbortWatch:
    return AbortWatch(ceiling_measures(experiment), experiment.abort)


def _first_abort(
    experiment: Experiment, samples: Iterable[Sample], fault_ns: int
) -> tuple[float, AbortDecision] | None:
    """Fed in order of arrival and asked ten times a second, as the engine does: when it aborts, in seconds after the fault."""
    watch, started = _watch(experiment), False
    now = 0
    for sample in sorted(samples, key=lambda s: s.time_ns + s.latency_ns):
        ends = sample.time_ns + sample.latency_ns
        while now + SECOND // 10 <= ends:
            now += SECOND // 10
            if not started and now >= fault_ns:
                watch.fault_starts(fault_ns)
                started = True
            if (decision := watch.check(now)) is not None:
                return (now - fault_ns) / SECOND, decision
        watch.add(sample)
    return None


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_system_and_a_tolerable_fault_do_not_abort(
    experiment: Callable[..., Experiment], system: type[System], seed: int
) -> None:
    bursts = system(bursts=0.05, errors=0.02, change=lambda t: (5, 0.2, 0.002) if 10 <= t < 70 else (1, 0, 0))
    assert _first_abort(experiment(), bursts.series(seed), 10 * SECOND) is None


def test_a_total_failure_aborts_once_half_of_the_window_has_failed(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    found = _first_abort(experiment(), system(change=lambda t: (1, 1.0 if t >= 10 else 0, 0)).series(1), 10 * SECOND)
    assert found is not None
    after, decision = found
    assert 2.4 <= after <= 2.8
    assert decision.evidence["measure"] == "errorRate"
    assert float(decision.evidence["share_is_above"]) > 0.9
    assert decision.evidence["since_fault_bad"] == decision.evidence["since_fault_samples"]
    assert "requests failed in the last 5s; the ceiling is 50%" in decision.reason


def test_time_outs_longer_than_the_window_are_still_seen(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    """Requests hang and are given up after 10 s, twice the window: their end counts, not their intended time."""
    found = _first_abort(experiment(), system(change=lambda t: (1, 0, 1.0 if t >= 10 else 0)).series(1), 10 * SECOND)
    assert found is not None
    assert 10 <= found[0] <= 10.6


def test_requests_that_wait_longer_than_the_ceiling_abort_before_they_time_out(
    experiment: Callable[..., Experiment],
) -> None:
    watch = _watch(experiment())
    waiting = [number * SECOND // 50 for number in range(300)]
    assert watch.check(5 * SECOND, {"load": waiting}) is None
    decision = watch.check(6 * SECOND, {"load": waiting})
    assert decision is not None
    assert decision.evidence["waiting"] == decision.evidence["samples"] == 50
    assert "took longer than 5s" in decision.reason


def test_latency_above_its_ceiling_aborts(experiment: Callable[..., Experiment], system: type[System]) -> None:
    slow = experiment(abort={"p95": "1300ms", "for": "5s"})
    found = _first_abort(slow, system(change=lambda t: (50 if t >= 10 else 1, 0, 0)).series(1), 10 * SECOND)
    assert found is not None
    assert found[1].evidence["measure"] == "p95"
    assert found[1].evidence["limit_ns"] == 1.3e9


def test_fewer_samples_than_asked_for_decide_nothing(experiment: Callable[..., Experiment]) -> None:
    watch = _watch(experiment())
    for number in range(19):
        watch.add(Sample("load", number, 10, "refused"))
    assert watch.check(SECOND) is None
    assert watch.distance() == 2.0, "what is shown is the share, whatever the number"
    watch.add(Sample("load", 19, 10, "refused"))
    assert watch.check(SECOND) is not None


def test_exactly_at_the_ceiling_does_not_abort(experiment: Callable[..., Experiment]) -> None:
    watch = _watch(experiment())
    for number in range(40):
        watch.add(Sample("load", number, 10, "error" if number % 2 else "ok"))
    assert watch.check(SECOND) is None
    assert watch.distance() == 1.0


def test_the_window_forgets(experiment: Callable[..., Experiment]) -> None:
    watch = _watch(experiment())
    for number in range(100):
        watch.add(Sample("load", number, 10, "error"))
    assert watch.check(SECOND) is not None
    assert watch.check(5 * SECOND + 200) is None
    assert watch.distance() == 0.0


def test_the_window_is_as_if_counted_anew_each_time(experiment: Callable[..., Experiment]) -> None:
    """Against the plain definition, with samples that arrive in any order."""
    watch, draw, arrived = _watch(experiment()), random.Random(3), []
    for now in range(SECOND, 40 * SECOND, SECOND // 3):
        for _ in range(draw.randrange(12)):
            ends = now - draw.randrange(2 * SECOND)
            sample = Sample("load", ends - 1000, 1000, draw.choice(("ok", "ok", "error")))
            arrived.append((ends, sample.outcome))
            watch.add(sample)
        watch.check(now)
        window = [outcome for ends, outcome in arrived if now - 5 * SECOND < ends]
        share = window.count("error") / len(window) if window else 0.0
        assert watch.distance() == pytest.approx(share / 0.5)


def test_series_without_a_ceiling_are_passed_over(experiment: Callable[..., Experiment]) -> None:
    watch = _watch(experiment())
    for number in range(100):
        watch.add(Sample("stock.rss", number, 0, "value", 1e12))
        watch.add(Sample("stock", number, 0, "error"))
    assert watch.check(SECOND) is None
    assert watch.distance() == 0.0
