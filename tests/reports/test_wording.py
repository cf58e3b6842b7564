"""Quantities as people write them."""

from __future__ import annotations

import math

import pytest

from squall.reports import wording


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, wording.MISSING), (math.nan, wording.MISSING), (0, "0 s"), (1, "1 ns"), (850_000, "850 µs"), (999_600, "1 ms"),
        (312_400_000, "312 ms"), (1_236_000_000, "1.24 s"), (59_000_000_000, "59 s"), (125_000_000_000, "2 min 5 s"),
        (3_600_000_000_000, "1 h"), (3_723_000_000_000, "1 h 2 min"), (-5_000_000, "-5 ms"),
    ],
)  # fmt: skip
def test_durations(ns: float | None, text: str) -> None:
    assert wording.duration(ns) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "+0.0 s"), (12.34, "+12.3 s"), (-2, "-2.0 s"), (125, "+2:05 min"), (3725, "+1:02:05")]
)
def test_moments(seconds: float, text: str) -> None:
    assert wording.moment(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0, "0 %"), (0.00412, "0.412 %"), (0.5, "50 %"), (1, "100 %"), (None, wording.MISSING)]
)
def test_percentages(ratio: float | None, text: str) -> None:
    assert wording.percent(ratio) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("p.rss", 64 << 20, "64 MiB"), ("p.rss", 12, "12 B"), ("p.cpu", 0.345, "0.345 cores"), ("p.fds", 1e290, "1e+290"),
        ("q.value", 12_345, "12,345"), ("q.value", math.inf, wording.MISSING),
    ],
)  # fmt: skip
def test_gauges(name: str, value: float, text: str) -> None:
    assert wording.gauge(name, value) == text


def test_one_and_many_and_nothing() -> None:
    assert wording.number_of(1, "step") == "1 step"
    assert wording.number_of(1200, "step") == "1,200 steps"
    assert wording.within(0) == "at once"
    assert wording.within(None) == wording.MISSING


def test_nothing_passes_unseen() -> None:
    assert wording.printable("a\x00b\u202ec\ud800d\te\r\nf") == "a\ufffdb\ufffdc\ufffdd\te\nf"
    assert wording.one_line("a\n\n  b", 3) == "a b"
    assert wording.one_line("abcdef", 4) == "abc…"


def test_a_moment_that_no_clock_shows_is_no_error() -> None:
    assert wording.clock(1_772_373_909_000_000_000) == "2026-03-01 14:05:09 UTC"
    assert "unknown" in wording.clock(-(1 << 90))
