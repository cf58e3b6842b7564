"""ANALYSE: what the measurements of a run say, and how sure one can be. Pure: no I/O, no clock, the standard library only.

One idea runs through it: every threshold is an allowed *share* of bad samples. An error rate is the share of requests
that failed; "p95 <= 300 ms" means that at most 5 % took longer; a gauge's range, that at most 5 % lie outside. So one
interval (`shares`), one three-way rule (`rule`) and one kind of sliding window serve them all.

Reading order: `columns`, `measures` (what counts as bad) -> `windows` (when) -> `shares`, `quantiles` (how many, how sure) ->
`steady`, `abort` (while the run goes on) -> `findings`, `verdict` (when it is over) -> `compare` (two runs). `exact` and
`sequential` hold the mathematics. docs/explanation/statistics.md says why.
"""

from squall.analysis.abort import AbortDecision, AbortWatch
from squall.analysis.compare import Comparison, Difference, Measured, compare
from squall.analysis.exact import samples_needed
from squall.analysis.measures import Measure, ceiling_measures, measures_of
from squall.analysis.patterns import ClosingWatch
from squall.analysis.quantiles import quantile, quantile_interval
from squall.analysis.sequential import share_is_above
from squall.analysis.shares import Interval, share_interval
from squall.analysis.steady import Heal, HealWatch, SteadyState, check_steady_state
from squall.analysis.verdict import Facts, judge
from squall.analysis.windows import Timeline

__all__ = [
    "AbortDecision",
    "AbortWatch",
    "ClosingWatch",
    "Comparison",
    "Difference",
    "Facts",
    "Heal",
    "HealWatch",
    "Interval",
    "Measure",
    "Measured",
    "SteadyState",
    "Timeline",
    "ceiling_measures",
    "check_steady_state",
    "compare",
    "judge",
    "measures_of",
    "quantile",
    "quantile_interval",
    "samples_needed",
    "share_interval",
    "share_is_above",
]
