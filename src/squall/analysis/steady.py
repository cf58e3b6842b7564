"""The steady state: does it hold before, how soon is a breach seen, and when does it hold again.

Before the fault and while the system heals, point values decide, with a least number of samples: a wrong "no" costs a
run that is started again, a wrong "yes" is caught by the verdict, which asks for intervals. Healing is looked for on a
grid of 100 ms: the first moment from which the steady state holds for a stable window (5 s, longer where that has fewer
than three samples) *and* for all that was seen since; failing that, the first stable window, with a relapse.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

from squall.analysis.columns import Columns
from squall.analysis.exact import binomial_tail
from squall.analysis.measures import measures_of
from squall.analysis.shares import rule, share_interval
from squall.analysis.windows import SECOND
from squall.probes.samples import Series
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from squall.analysis.columns import Marks
    from squall.analysis.measures import Measure
    from squall.analysis.windows import Timeline
    from squall.experiment.model import Experiment
    from squall.probes.samples import Sample

__all__ = ["SAMPLES_MIN", "STABLE_NS", "Heal", "HealWatch", "SteadyState", "check_steady_state", "time_to_detect"]

SAMPLES_MIN = 3
"""Fewer say nothing."""
STABLE_NS = 5 * SECOND
_GRAIN_NS = SECOND // 10
_BINS_MAX = 1000
"""Where more than 95 s are allowed for healing the grid is coarser, so that a check has a bound."""
_DETECT_SAMPLES = 10
_DETECT_ALPHA = 1e-4


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Whether the steady state holds, and what was seen, in words; `broken` names the thresholds that do not hold."""

    holds: bool
    detail: str
    broken: tuple[str, ...] = ()


def check_steady_state(experiment: Experiment, series: Mapping[str, Series], timeline: Timeline) -> SteadyState:
    """The gate before the fault: every threshold holds over the baseline by its point value, with at least three samples.

    A baseline of 0s asks for no gate; it holds then.
    """
    if experiment.baseline == 0:
        return SteadyState(holds=True, detail="not checked: the baseline is 0s")
    held, broken = [], []
    measures = measures_of(experiment)
    columns = columns_of(measures, series)
    for measure in measures:
        bad, total = measure.marks(columns[measure.series]).counts(timeline.before)
        n, n_bad = sum(total), sum(bad)
        if n < SAMPLES_MIN:
            broken.append(
                f"{measure.expectation}: {measure.text} needs {SAMPLES_MIN} samples, not {n}: lengthen `baseline` or sample oftener"
            )
        elif n_bad > n * measure.allowed:
            broken.append(f"{measure.expectation}: {measure.text} does not hold: {_share_said(measure, n_bad, n)}")
        else:
            held.append(f"{measure.expectation}: {measure.text}")
    return SteadyState(not broken, "; ".join(broken or held or ["nothing is expected"]), tuple(broken))


def columns_of(measures: Iterable[Measure], series: Mapping[str, Series]) -> dict[str, Columns]:
    """The columns of every series that is measured; of one without samples, empty ones."""
    names = dict.fromkeys(measure.series for measure in measures)
    return {name: Columns(series.get(name, Series(name))) for name in names}


def _share_said(measure: Measure, bad: int, n: int) -> str:
    verb = {"errors": "failed", "latency": "were slower", "gauge": "were outside"}[measure.kind]
    return f"{bad} of {n} {verb} ({bad / n:.2%}; {Ratio(measure.allowed)} is allowed)"


def time_to_detect(measures: Sequence[Measure], columns: Mapping[str, Columns], timeline: Timeline) -> int | None:
    """From the first fault's start to the first moment at which the samples show a breach of the steady state, in ns.

    A trailing window of 5 s (at least the last ten samples) shows it when so many bad ones would come by chance in less
    than one of 10,000 windows if the threshold were just kept. A request shows that it is slow when it has waited as
    long as is allowed, and that it failed when it ends. None: never shown.
    """
    if not timeline.during:
        return None
    start, end = timeline.during[0][0], timeline.fault_end_ns
    moments = [_first_breach(m, columns[m.series], start, end) for m in measures]
    return min((moment - start for moment in moments if moment is not None), default=None)


def _first_breach(measure: Measure, columns: Columns, start: int, end: int) -> int | None:
    shown = measure.moments(columns, start, end)
    if not shown:
        return None
    times = measure.marks(columns).times
    begin, allowed = bisect_left(times, start), measure.allowed
    for last, moment in enumerate(shown):
        until = bisect_right(times, moment)
        first = bisect_left(times, max(start, moment - STABLE_NS))
        if until - first < _DETECT_SAMPLES:
            first = max(begin, until - _DETECT_SAMPLES)
        since = max(start, min(moment - STABLE_NS, times[first])) if first < len(times) else start
        bad = last + 1 - bisect_left(shown, since)
        n = max(until - first, bad)
        if (
            bad > n * allowed + 3 * math.sqrt(n * allowed * (1 - allowed))
            and binomial_tail(bad, n, allowed) < _DETECT_ALPHA
        ):
            return moment
    return None


@dataclass(frozen=True, slots=True)
class Heal:
    """How far healing is: `healed_ns` is the time to recover (None: not seen yet); `done`: watching on would tell no more.

    `state`: `waiting` for it, `healed` within the time allowed, `late` when that has passed without it. `lasting`: from
    then on all that was seen, taken together, is within the thresholds; else there was a relapse.
    """

    state: Literal["waiting", "healed", "late"]
    healed_ns: int | None
    lasting: bool
    done: bool
    detail: str


class HealWatch:
    """Watches for the steady state after the fault; used by the engine as samples come, and by `judge` afterwards.

    Feed it every sample from the fault's end on and `check` about once a second. The run may end once `done`: the
    steady state was seen to return and enough samples were taken to say so, or the time allowed (and one stable window
    more, to confirm a recovery at the last moment) has passed.
    """

    def __init__(self, experiment: Experiment, fault_end_ns: int) -> None:
        self._within_ns, self._end_ns = int(experiment.recovery.within), fault_end_ns
        watched = self._within_ns + STABLE_NS
        grain = max(_GRAIN_NS, math.ceil(watched / _BINS_MAX))
        bins, seed = math.ceil(watched / grain), experiment.seed
        self._healing = [_Healing(m, fault_end_ns, grain, bins, seed) for m in measures_of(experiment)]
        self._by_series: dict[str, list[_Healing]] = {}
        for healing in self._healing:
            self._by_series.setdefault(healing.measure.series, []).append(healing)

    @property
    def deadline_ns(self) -> int:
        """When watching ends whatever is seen."""
        return self._end_ns + self._within_ns + STABLE_NS

    def add(self, sample: Sample) -> None:
        """One more sample; those meant to be sent before the fault's end do not count."""
        for healing in self._by_series.get(sample.series, ()):
            healing.add(sample)

    def check(self, now_ns: int, waiting: Mapping[str, Sequence[int]] | None = None) -> Heal:
        """How far healing is now; `waiting`: for each series the intended times of unanswered requests."""
        now_ns = min(now_ns, self.deadline_ns)
        over = now_ns >= self.deadline_ns
        found = []
        for healing in self._healing:
            slow = waiting.get(healing.measure.series, ()) if waiting else ()
            found.append(healing.since(now_ns, slow))
        missing = [h.measure for h, since in zip(self._healing, found, strict=True) if since is None]
        if missing:
            names = ", ".join(f"{m.expectation}: {m.text}" for m in missing)
            return Heal(
                "late" if over else "waiting", None, lasting=False, done=over, detail=f"not steady again: {names}"
            )
        healed_ns = max((since[0] for since in found if since), default=0)
        lasting = all(since[1] for since in found if since)
        said = f"steady again after {Duration(healed_ns).rounded}" + ("" if lasting else ", but not to the end")
        if healed_ns > self._within_ns:
            return Heal("late", healed_ns, lasting, over, said)
        told = lasting and all(healing.can_tell(healed_ns, now_ns) for healing in self._healing)
        return Heal("healed", healed_ns, lasting, over or told, said)

    @classmethod
    def replay(cls, experiment: Experiment, columns: Mapping[str, Columns], timeline: Timeline) -> HealWatch:
        """The watch as it stood at the end of a run, from its samples."""
        watch = cls(experiment, timeline.fault_end_ns)
        for healing in watch._healing:
            healing.fill(healing.measure.marks(columns[healing.measure.series]))
        return watch


class _Healing:
    """One measure after the fault's end, counted in bins of `grain` ns by intended time."""

    def __init__(self, measure: Measure, from_ns: int, grain: int, bins: int, seed: int) -> None:
        self.measure, self._from_ns, self._grain, self._seed = measure, from_ns, grain, seed
        self._told: tuple[int, int, bool] = (-1, -1, False)
        self._n, self._bad = [0] * bins, [0] * bins

    def add(self, sample: Sample) -> None:
        bad, at = self.measure.is_bad(sample), (sample.time_ns - self._from_ns) // self._grain
        if bad is not None and 0 <= at < len(self._n):
            self._n[at] += 1
            self._bad[at] += bad

    def fill(self, marks: Marks) -> None:
        starts = range(self._from_ns, self._from_ns + len(self._n) * self._grain, self._grain)
        self._bad, self._n = marks.counts([(at, at + self._grain) for at in starts])

    def since(self, now_ns: int, waiting: Sequence[int] = ()) -> tuple[int, bool] | None:
        """From the fault's end to the first moment from which it holds, in ns, and whether to the end; None: not yet."""
        n, bad, last = self._sums(now_ns, waiting)
        relapsed = None
        for first in range(last):
            # The stable window reaches to where it has its length and its least number of samples.
            stable = max(first + math.ceil(STABLE_NS / self._grain), bisect_left(n, n[first] + SAMPLES_MIN))
            if stable > last:
                break
            if self._holds(n, bad, first, stable):
                if self._holds(n, bad, first, last):
                    return first * self._grain, True
                relapsed = first if relapsed is None else relapsed
        return None if relapsed is None else (relapsed * self._grain, False)

    def can_tell(self, healed_ns: int, now_ns: int) -> bool:
        """Whether the samples since healing are enough for a verdict: by the verdict's own interval, over whole seconds."""
        if self.measure.state:
            return True
        n, bad, last = self._sums(now_ns, ())
        first = min(last, healed_ns // self._grain)
        step = max(1, SECOND // self._grain)
        whole = (last - first) // step
        if self._told[:2] != (first, whole):  # it costs some milliseconds, and the seconds are the same until the next
            edges = [*range(first, first + whole * step + 1, step), last]
            units = [(start, end) for start, end in pairwise(edges) if end > start]
            counts = [bad[end] - bad[start] for start, end in units], [n[end] - n[start] for start, end in units]
            share = share_interval(*counts, self._seed)
            self._told = first, whole, share.n > 0 and rule(share, self.measure.allowed) != "unclear"
        return self._told[2]

    def _sums(self, now_ns: int, waiting: Sequence[int]) -> tuple[list[int], list[int], int]:
        n, bad = self._n, self._bad
        late = [(at - self._from_ns) // self._grain for at in waiting if now_ns - at > self.measure.limit]
        if late and self.measure.kind == "latency":
            n, bad = n.copy(), bad.copy()
            for at in late:
                if 0 <= at < len(n):
                    n[at] += 1
                    bad[at] += 1
        last = min(len(n), max(0, (now_ns - self._from_ns) // self._grain))
        return [0, *accumulate(n)], [0, *accumulate(bad)], last

    def _holds(self, n: list[int], bad: list[int], first: int, last: int) -> bool:
        return bad[last] - bad[first] <= (n[last] - n[first]) * self.measure.allowed
