"""The verdict on whole runs, simulated: right where the truth is plain, and rarely wrong where there was no fault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from squall.analysis import Facts, Timeline, judge
from squall.events import Stamp, Stamped, decode, encode
from squall.probes.samples import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import System

    from squall.events import Finding, VerdictReached
    from squall.experiment.model import Experiment

SECOND = 1_000_000_000


def _judged(experiment: Experiment, system: System, seed: int = 1, facts: Facts | None = None) -> VerdictReached:
    return judge(experiment, {"load": system.series(seed)}, system.timeline, facts or Facts())


def _finding(verdict: VerdictReached, beginning: str) -> Finding:
    return next(f for f in verdict.findings if f.expectation.startswith(beginning))


def _during(
    latency: float = 1, errors: float = 0, hang: float = 0, lasts: float = 60
) -> Callable[[float], tuple[float, float, float]]:
    return lambda t: (latency, errors, hang) if 10 <= t < 10 + lasts else (1, 0, 0)


def test_a_fault_that_is_ridden_out_passes(experiment: Callable[..., Experiment], system: type[System]) -> None:
    """The blueprint's example: 50/s for a minute, a little slower, no errors to speak of."""
    verdict = _judged(experiment(), system(change=_during(latency=5)))
    assert verdict.verdict == "passed"
    assert [f.outcome for f in verdict.findings] == ["met"] * 5
    assert verdict.recover_ns == 0


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (_during(errors=0.9), "orders: errorRate <= 2% while"),
        (_during(errors=0.10), "orders: errorRate <= 2% while"),
        (_during(latency=60), "orders: p95 <= 1.2s while"),
        (_during(hang=0.3), "orders: p95 <= 1.2s while"),
        (lambda t: (1, 0.2 if t >= 10 else 0, 0), "steady again within 30s"),
    ],
)
def test_what_is_not_tolerated_fails(
    experiment: Callable[..., Experiment],
    system: type[System],
    change: Callable[[float], tuple[float, float, float]],
    broken: str,
) -> None:
    verdict = _judged(experiment(), system(change=change, after=35))
    assert verdict.verdict == "failed"
    assert _finding(verdict, broken).outcome == "broken"


@pytest.mark.parametrize(
    ("lasts", "excused", "verdict"),
    [(18, "20s", "passed"), (25, "20s", "failed"), (25, "30s", "passed"), (45, "1m", "failed")],
)
def test_tolerance_may_be_exceeded_for_as_long_as_is_excused(
    experiment: Callable[..., Experiment], system: type[System], lasts: float, excused: str, verdict: str
) -> None:
    """A total outage of so many seconds; never more than half of the fault's minute is excused."""
    judged = _judged(
        experiment(tolerate={"exceptFor": excused}), system(errors=0, change=_during(errors=1.0, lasts=lasts))
    )
    assert judged.verdict == verdict
    assert f"exceeded for {lasts}s in all" in _finding(judged, "orders: errorRate <= 2% while").reason


def test_errors_and_latency_share_the_excused_time(experiment: Callable[..., Experiment], system: type[System]) -> None:
    """15 s of failures, then 15 s of slowness: 20 s are excused in all, not for each."""
    made = system(errors=0, change=lambda t: (1, 1, 0) if 10 <= t < 25 else (60, 0, 0) if 25 <= t < 40 else (1, 0, 0))
    assert _judged(experiment(), made).verdict == "failed"
    assert _judged(experiment(tolerate={"exceptFor": "30s"}), made).verdict == "passed"


@pytest.mark.parametrize(
    ("rate", "errors", "verdict"),
    [(1, 0.0, "inconclusive"), (0.2, 0.0, "inconclusive"), (1, 1.0, "failed"), (20, 0.0, "passed")],
)
def test_a_lack_of_data_is_never_a_pass(
    experiment: Callable[..., Experiment], system: type[System], rate: float, errors: float, verdict: str
) -> None:
    judged = _judged(experiment(), system(rate=rate, errors=0, change=_during(errors=errors)))
    assert judged.verdict == verdict
    if verdict == "inconclusive":
        assert "too few samples to tell, at least" in judged.reason


def test_a_slow_probe_cannot_show_half_a_percent(experiment: Callable[..., Experiment]) -> None:
    """Once a second for 10 s, all well, 0.5 % allowed: not a pass."""
    probe = experiment(load=None, steadyState=[{"name": "port", "tcp": "127.0.0.1:9"}])
    series = Series("port")
    for second in range(30):
        series.add(Sample("port", second * SECOND, 1_000_000, "ok"))
    verdict = judge(probe, {"port": series}, Timeline(0, ((10 * SECOND, 20 * SECOND),), 20 * SECOND, 30 * SECOND))
    assert verdict.verdict == "inconclusive"


def test_a_state_that_lasts_is_told_by_a_few_looks(experiment: Callable[..., Experiment]) -> None:
    looks = experiment(
        load=None, steadyState=[{"name": "stock", "process": {"command": "shop"}, "values": {"rss": {"most": 100}}}]
    )
    timeline = Timeline(0, ((10 * SECOND, 70 * SECOND),), 70 * SECOND, 80 * SECOND)

    def run(rss_after: float) -> VerdictReached:
        alive, rss = Series("stock"), Series("stock.rss")
        for second in range(80):
            alive.add(Sample("stock", second * SECOND, 0, "ok"))
            rss.add(Sample("stock.rss", second * SECOND, 0, "value", 50 if second < 70 else rss_after))
        return judge(looks, {"stock": alive, "stock.rss": rss}, timeline)

    assert run(60).verdict == "passed"
    leaked = run(150)
    assert leaked.verdict == "failed" or "not steady again" in leaked.reason
    assert _finding(leaked, "stock: rss <= 100").numbers["after"]["value"] == 150


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (Facts(aborted="90% failed", interrupted="SIGINT"), "aborted"),
        (Facts(interrupted="SIGINT"), "inconclusive"),
        (Facts(load_behind="the machine was too busy"), "inconclusive"),
        (Facts(lease_lapsed="for 2 s"), "inconclusive"),
        (Facts(not_injected="no permission"), "inconclusive"),
        (Facts(not_steady="3% failed"), "inconclusive"),
        (Facts(targets_lost=("shop",)), "failed"),
        (Facts(), "failed"),
    ],
)
def test_precedence_over_a_failure(
    experiment: Callable[..., Experiment], system: type[System], facts: Facts, verdict: str
) -> None:
    assert _judged(experiment(), system(change=_during(errors=0.9)), facts=facts).verdict == verdict


def test_a_lost_target_takes_the_pass_away(experiment: Callable[..., Experiment], system: type[System]) -> None:
    judged = _judged(experiment(), system(errors=0), facts=Facts(targets_lost=("shop (pid 7)",)))
    assert (judged.verdict, judged.reason) == ("inconclusive", "a target was lost: shop (pid 7)")


def test_nothing_injected_says_what_did_not_hold(experiment: Callable[..., Experiment], system: type[System]) -> None:
    series = system(errors=0.2).series(1)
    verdict = judge(experiment(), {"load": series}, Timeline(0, (), 0, 10 * SECOND))
    assert verdict.verdict == "inconclusive"
    assert verdict.reason.startswith(
        "the steady state did not hold before the fault: orders: errorRate <= 0.5% does not hold"
    )
    assert _finding(verdict, "orders: errorRate").numbers.keys() == {"before"}


def test_a_verdict_survives_the_file_of_events(experiment: Callable[..., Experiment], system: type[System]) -> None:
    judged = _judged(experiment(), system(change=_during(hang=0.5)))
    line = encode(Stamped(Stamp("r", 0, 0, 0), judged))
    assert decode(line).event == judged
    assert json.loads(line)["findings"][1]["numbers"]["during"]["open_above"] == 1


def test_the_same_samples_give_the_same_verdict(experiment: Callable[..., Experiment], system: type[System]) -> None:
    made = system(bursts=0.02)
    assert _judged(experiment(), made, 5) == _judged(experiment(), made, 5)


def test_pulses_are_judged_while_they_are_on(experiment: Callable[..., Experiment], system: type[System]) -> None:
    """On for 2 s, off for 8 s, and only the pulses hurt: nothing in between makes it look better."""
    made = system(errors=0, change=lambda t: (1, 0.3 if 10 <= t < 70 and t % 10 < 2 else 0, 0))
    spans = tuple((at * SECOND, (at + 2) * SECOND) for at in range(10, 70, 10))
    timeline = Timeline(0, spans, 70 * SECOND, 100 * SECOND)
    verdict = judge(experiment(tolerate={"exceptFor": "0s"}), {"load": made.series(1)}, timeline)
    found = _finding(verdict, "orders: errorRate <= 2% while")
    assert found.outcome == "broken"
    assert found.numbers["during"]["value"] == pytest.approx(0.3, abs=0.05)
    assert found.numbers["during"]["n"] == 600


@pytest.mark.slow
def test_a_thousand_fault_free_experiments_raise_no_more_false_alarms_than_stated(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    """A/A: nothing is injected; levels wander, bursts come and go. Stated: at most 1 % are failed (the test allows 0.5 %).

    A healthy system passes in at least 93 % of the runs (bursts can leave too little to be sure, which is inconclusive).
    """
    kinds = (
        system(),
        system(bursts=0.005),
        system(rate=20, errors=0.001),
        system(median_ms=60, memory=0.9, wander=0.08, spread=0.5),
    )
    verdicts = [_judged(experiment(seed=seed), kinds[seed % len(kinds)], seed).verdict for seed in range(1000)]
    assert verdicts.count("failed") <= stats.binom.ppf(0.999, 1000, 0.005)
    assert verdicts.count("passed") >= 930


@pytest.mark.slow
def test_a_system_just_at_what_is_tolerated_is_seldom_failed(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    """The hardest honest case: the true error rate is the threshold itself, nothing is excused. Stated: at most 2.5 % a threshold."""
    at_the_edge = experiment(
        tolerate={"exceptFor": "0s"},
        steadyState=[{"name": "orders", "http": {"url": "http://127.0.0.1:8080/orders"}, "errorRate": "4%"}],
        abort={"errorRate": "60%"},
    )
    verdicts = [_judged(at_the_edge, system(errors=0.02), seed).verdict for seed in range(300)]
    assert verdicts.count("failed") <= stats.binom.ppf(0.999, 300, 0.025)
    assert verdicts.count("passed") > 60, "it is not simply undecided"
