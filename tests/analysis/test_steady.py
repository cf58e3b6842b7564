"""The steady state: the gate before the fault, the time to detect, healing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.analysis import HealWatch, Timeline, check_steady_state, judge, measures_of
from squall.analysis.columns import Columns
from squall.analysis.steady import time_to_detect
from squall.probes.samples import Sample, Series
from squall.units import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import System

    from squall.experiment.model import Experiment

SECOND = 1_000_000_000
BASELINE = Timeline(0, (), 0, 10 * SECOND)


def _detect(experiment: Experiment, system: System, seed: int = 1) -> float | None:
    found = time_to_detect(measures_of(experiment), {"load": Columns(system.series(seed))}, system.timeline)
    return None if found is None else found / SECOND


def test_the_gate_opens_for_a_steady_system(experiment: Callable[..., Experiment], system: type[System]) -> None:
    state = check_steady_state(experiment(), {"load": system().series(1)}, BASELINE)
    assert state.holds
    assert state.broken == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"errors": 0.05}, "errorRate <= 0.5% does not hold"), ({"median_ms": 250}, "p95 <= 300ms does not hold")],
)
def test_the_gate_stays_shut_and_says_why(
    experiment: Callable[..., Experiment], system: type[System], changes: dict[str, float], said: str
) -> None:
    state = check_steady_state(experiment(), {"load": system(**changes).series(1)}, BASELINE)
    assert not state.holds
    assert said in state.detail


def test_the_gate_wants_samples(experiment: Callable[..., Experiment]) -> None:
    assert "needs 3 samples, not 0" in check_steady_state(experiment(), {}, BASELINE).detail
    assert not check_steady_state(experiment(), {"load": Series("load")}, BASELINE).holds


def test_no_baseline_is_no_gate(experiment: Callable[..., Experiment]) -> None:
    assert check_steady_state(
        experiment().model_copy(update={"baseline": Duration(0)}), {}, Timeline(0, (), 0, 0)
    ).holds


def test_a_steady_system_is_not_detected(experiment: Callable[..., Experiment], system: type[System]) -> None:
    assert [_detect(experiment(), system(), seed) for seed in range(20)] == [None] * 20


@pytest.mark.parametrize(("onset", "rate"), [(0.0, 50), (20.0, 50), (0.0, 1), (20.0, 1), (3.0, 1000)])
def test_a_total_failure_is_detected_within_a_few_requests(
    experiment: Callable[..., Experiment], system: type[System], onset: float, rate: float
) -> None:
    broken = system(rate=rate, change=lambda t: (1, 1.0 if 10 + onset <= t < 70 else 0, 0))
    found = _detect(experiment(), broken)
    assert found is not None
    assert onset <= found <= onset + max(0.5, 5 / rate)


def test_slowness_is_detected_when_requests_have_waited_too_long(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    """All answers take 3 s: that is known 300 ms after the first were sent, not 3 s after."""
    found = _detect(experiment(), system(spread=0.01, wander=0, change=lambda t: (75 if 10 <= t < 70 else 1, 0, 0)))
    assert found is not None
    assert 0.3 < found < 1.0


def test_requests_that_hang_are_detected_at_the_latest_by_their_time_outs(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    only_errors = experiment(
        steadyState=[{"name": "orders", "http": {"url": "http://127.0.0.1:8080/orders"}, "p95": "1h"}]
    )
    found = _detect(only_errors, system(change=lambda t: (1, 0, 1.0 if 10 <= t < 70 else 0)))
    assert found is not None
    assert 10 <= found < 10.5


def _heal_online(experiment: Experiment, system: System, seed: int = 1) -> tuple[float | None, float]:
    """Time to recover as the engine learns it, second by second, and when it could end the run; seconds after the fault."""
    samples, end = list(system.series(seed)), system.timeline.fault_end_ns
    watch = HealWatch(experiment, end)
    samples.sort(key=lambda sample: sample.time_ns + sample.latency_ns)
    at = 0
    for tenth in range(1, 1000):
        now = end + tenth * SECOND // 10
        while at < len(samples) and samples[at].time_ns + samples[at].latency_ns <= now:
            watch.add(samples[at])
            at += 1
        heal = watch.check(now)
        if heal.done:
            return (None if heal.healed_ns is None else heal.healed_ns / SECOND), tenth / 10
    raise AssertionError("the watch never ends")


@pytest.mark.parametrize("lasts", [0.0, 4.0, 12.3, 29.0])
def test_healing_is_seen_when_it_happens_and_the_run_ends_soon_after(
    experiment: Callable[..., Experiment], system: type[System], lasts: float
) -> None:
    slow_to_heal = system(errors=0, after=40, change=lambda t: (1, 1.0 if 10 <= t < 70 + lasts else 0, 0))
    healed, ended = _heal_online(experiment(), slow_to_heal)
    assert healed == pytest.approx(lasts, abs=0.2)
    assert lasts + 5 <= ended <= lasts + 6


def test_online_and_afterwards_agree(experiment: Callable[..., Experiment], system: type[System]) -> None:
    for seed, lasts in enumerate((0.0, 3.3, 17.0)):
        made = system(after=35, change=lambda t, lasts=lasts: (1, 0.5 if 10 <= t < 70 + lasts else 0, 0))
        healed, _ = _heal_online(experiment(), made, seed)
        verdict = judge(experiment(), {"load": made.series(seed)}, made.timeline)
        assert verdict.recover_ns is not None
        assert verdict.recover_ns / SECOND == healed


def test_what_never_heals_is_late_when_the_time_allowed_has_passed(
    experiment: Callable[..., Experiment], system: type[System]
) -> None:
    healed, ended = _heal_online(experiment(), system(after=60, change=lambda t: (1, 1.0 if t >= 10 else 0, 0)))
    assert healed is None
    assert ended == 35.0


def test_few_samples_are_watched_for_to_the_end(experiment: Callable[..., Experiment], system: type[System]) -> None:
    """Once a second cannot show 0.5 % in 30 s: it is worth watching to the last."""
    healed, ended = _heal_online(experiment(), system(rate=1, errors=0, after=60))
    assert (healed, ended) == (0.0, 35.0)


def test_requests_that_still_wait_keep_it_from_healing(experiment: Callable[..., Experiment]) -> None:
    """Every second request hangs, unanswered; what is answered looks fine."""
    watch, waiting = HealWatch(experiment(), 0), []
    for number in range(500):
        at = number * SECOND // 50
        if number % 2:
            waiting.append(at)
        else:
            watch.add(Sample("load", at, 20_000_000, "ok"))
    now = 10 * SECOND
    assert watch.check(now).healed_ns == 0
    assert watch.check(now, {"load": waiting}).healed_ns is None


def test_a_relapse_is_told_from_a_late_recovery(experiment: Callable[..., Experiment], system: type[System]) -> None:
    late = system(errors=0, change=lambda t: (1, 1.0 if 10 <= t < 70 or 76 <= t < 86 else 0, 0))
    flapping = system(errors=0, change=lambda t: (1, 1.0 if 10 <= t < 70 or 76 <= t < 86 or t >= 96 else 0, 0))
    for made, recovered, verdict in ((late, 16.0, "met"), (flapping, 0.0, "broken")):
        judged = judge(experiment(), {"load": made.series(1)}, made.timeline)
        assert judged.recover_ns is not None
        assert judged.recover_ns / SECOND == pytest.approx(recovered, abs=0.2)
        assert judged.findings[-1].outcome == verdict


def test_an_hour_of_healing_is_watched_in_bounded_work(experiment: Callable[..., Experiment]) -> None:
    watch = HealWatch(experiment(recovery={"within": "1h"}), 0)
    for second in range(3600):
        watch.add(Sample("load", second * SECOND, 1, "error" if second < 3000 else "ok"))
    healed = watch.check(3600 * SECOND).healed_ns
    assert healed is not None
    assert healed / SECOND == pytest.approx(3000, abs=20)
