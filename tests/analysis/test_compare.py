"""Two runs side by side."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from squall.analysis import Measured, compare
from squall.analysis.compare import mann_whitney

if TYPE_CHECKING:
    from conftest import System

    from squall.analysis import Difference


def _run(name: str, system: System, seed: int, recover_ns: int | None = None) -> Measured:
    return Measured(name, {"load": system.series(seed)}, system.timeline, recover_ns)


def _one(differences: tuple[Difference, ...], phase: str, what: str) -> Difference:
    return next(d for d in differences if (d.phase, d.what) == (phase, what))


def test_what_got_better_worse_and_stayed_is_told(system: type[System]) -> None:
    before = system(wander=0.05, errors=0.1, change=lambda t: (10, 0.2, 0) if 10 <= t < 70 else (1, 0, 0))
    after = system(wander=0.05, errors=0.0, median_ms=80, change=lambda t: (1.2, 0, 0) if 10 <= t < 70 else (1, 0, 0))
    found = compare(_run("a", before, 1), _run("b", after, 2)).differences
    assert [(d.phase, d.what) for d in found] == [
        (p, w) for p in ("before", "during", "after") for w in ("p50", "p95", "p99", "errorRate")
    ]
    assert _one(found, "during", "p95").change == "better"
    assert _one(found, "during", "errorRate").change == "better"
    assert _one(found, "after", "p50").change == "worse"
    worse = _one(found, "after", "p50")
    assert worse.low < worse.value == worse.b.value - worse.a.value < worse.high
    assert worse.p_value is not None
    assert worse.p_value < 1e-4


def test_equal_runs_are_the_same_where_there_is_enough_to_tell(system: type[System]) -> None:
    calm = system(rate=200, wander=0.02, memory=0, errors=0.001)
    found = compare(_run("a", calm, 1), _run("b", calm, 2)).differences
    assert _one(found, "during", "p50").change == "same"
    assert _one(found, "during", "errorRate").change == "same"
    assert not [d for d in found if d.change in ("better", "worse")]


def test_too_little_to_tell_is_said(system: type[System]) -> None:
    few = system(rate=2, wander=0, memory=0)
    found = compare(_run("a", few, 1), _run("b", few, 2)).differences
    assert {d.change for d in found if d.phase == "before"} == {"unclear"}


@pytest.mark.slow
def test_runs_of_the_same_system_are_seldom_called_different(system: type[System]) -> None:
    """Each difference's interval leaves out zero in about 5 % at most; counted for four numbers of the fault's phase."""
    wrong, pairs = 0, 40
    for seed in range(pairs):
        made = system(memory=0.5, errors=0.01)
        found = compare(_run("a", made, 2 * seed), _run("b", made, 2 * seed + 1)).differences
        wrong += sum(d.low > 0 or d.high < 0 for d in found if d.phase == "during")
    assert wrong / (4 * pairs) <= 0.09


@pytest.mark.parametrize(
    ("a", "b", "change"),
    [(None, None, "unclear"), (None, 5, "better"), (5, None, "worse"), (5, 5, "same"), (5, 6, "unclear")],
)
def test_one_recovery_each_tells_little(system: type[System], a: int | None, b: int | None, change: str) -> None:
    empty = system(rate=1)
    assert compare(_run("a", empty, 1, a), _run("b", empty, 1, b)).recovery == change


def test_series_of_one_run_only_are_named(system: type[System]) -> None:
    made = system(rate=1)
    a, b = _run("first", made, 1), Measured("second", {"other": made.series(1, "other")}, made.timeline)
    assert dict(compare(a, b).only_in) == {"load": "first", "other": "second"}


def test_mann_whitney_is_scipys() -> None:
    draw = random.Random(1)
    for size, step in ((8, 0), (20, 1), (60, 2), (300, 0.5)):
        a = [draw.randrange(40) for _ in range(size)]
        b = [draw.randrange(40) + step for _ in range(size + 5)]
        expected = float(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)
        assert mann_whitney(a, b) == pytest.approx(expected, rel=1e-6)


def test_mann_whitney_needs_eight_a_side() -> None:
    assert mann_whitney([1.0] * 7, [2.0] * 100) is None
    assert mann_whitney([1.0] * 9, [1.0] * 9) == 1.0
