"""Each threshold of a run with its numbers before, during and after, and whether it was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from squall.analysis.columns import cut
from squall.analysis.exact import FINEST, binomial_ranks, binomial_tail, samples_needed
from squall.analysis.measures import measures_of
from squall.analysis.quantiles import quantile_interval
from squall.analysis.shares import Interval, Outcome, rule, share_interval
from squall.analysis.steady import SAMPLES_MIN, STABLE_NS, HealWatch, columns_of, time_to_detect
from squall.analysis.windows import SECOND, in_seconds, merged
from squall.events import Finding
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.analysis.columns import Columns, Marks
    from squall.analysis.measures import Measure
    from squall.analysis.windows import Span, Timeline
    from squall.experiment.model import Experiment
    from squall.probes.samples import Series

__all__ = ["Evidence"]

_UNITS: dict[str, Literal["ns", "ratio", "count", ""]] = {"errors": "ratio", "latency": "ns", "gauge": ""}

_BEYOND_DOUBT = 1e-3
"""A second is over a threshold beyond doubt when chance alone would do it in fewer than one of a thousand."""
_SLACK_NS = SECOND
"""The time lost beyond what is excused is known to about a second: the edges of an outage do not fall on whole seconds."""


class Evidence:
    """The samples of one run, cut and counted once, and the findings that follow from them."""

    def __init__(self, experiment: Experiment, series: Mapping[str, Series], timeline: Timeline) -> None:
        self._experiment, self._timeline = experiment, timeline
        self._steady, self._tolerated = measures_of(experiment), measures_of(experiment, tolerated=True)
        self._columns = columns_of(self._steady + self._tolerated, series)
        self._marks: dict[tuple[object, ...], Marks] = {}
        self._numbers: dict[tuple[object, ...], Interval | None] = {}
        self._before, self._during = in_seconds(timeline.before), in_seconds(timeline.during)
        self._heal = HealWatch.replay(experiment, self._columns, timeline).check(timeline.end_ns)
        self._after = in_seconds(self._steady_span())

    @property
    def detected_ns(self) -> int | None:
        """The time to detect: when the samples first showed that the steady state was left."""
        return time_to_detect(self._steady, self._columns, self._timeline)

    @property
    def recovered_ns(self) -> int | None:
        """The time to recover: when every threshold of the steady state held again."""
        return self._heal.healed_ns if self._timeline.faults else None

    def baseline(self) -> list[Finding]:
        """Of a run in which nothing was injected: the steady state over the baseline."""
        return [self._finding(m, "before", self._judged(m, self._before)) for m in self._steady]

    def tolerated(self) -> list[Finding]:
        """What was to be tolerated while a fault was on, but for the time that is excused."""
        findings: list[Finding] = []
        by_expectation: dict[str, list[Measure]] = {}
        for measure in self._tolerated:
            by_expectation.setdefault(measure.expectation, []).append(measure)
        for measures in by_expectation.values():
            excused = self._excused(measures)
            findings += [self._finding(m, "while the fault is on", self._judged_but_for(m, excused)) for m in measures]
        return findings

    def steady_again(self) -> list[Finding]:
        """The steady state after the fault, and whether it came back in time."""
        findings = [self._finding(m, "again afterwards", self._judged(m, self._after)) for m in self._steady]
        return [*findings, self._in_time(findings)] if findings else []

    def _in_time(self, findings: list[Finding]) -> Finding:
        within = self._experiment.recovery.within
        watched = self._timeline.end_ns - self._timeline.fault_end_ns
        outcome: Outcome = "broken" if any(f.outcome == "broken" for f in findings) else "unclear"
        reason = self._heal.detail
        if self._heal.state == "healed" and (self._heal.lasting or outcome == "unclear"):
            outcome = "met"
        elif self._heal.state == "late" and self._heal.healed_ns is not None:
            outcome = "broken"
        elif watched < within:
            outcome, reason = "unclear", f"{reason}; watched for {Duration(max(0, watched)).rounded} only"
        elif outcome == "unclear":
            reason += ", but too few samples to be sure"
        numbers = {}
        if self._heal.healed_ns is not None:
            value = float(self._heal.healed_ns)
            numbers["after"] = Interval(value, value, value, 1).to_json()
        return Finding(f"steady again within {within}", "", outcome, reason, float(within), "ns", numbers)

    def _steady_span(self) -> tuple[Span, ...]:
        """From the recovery to the end; where there was none, what follows the time that was allowed for it."""
        if not self._timeline.after:
            return ()
        ((start, end),) = self._timeline.after
        if self._heal.healed_ns is not None:
            begin = start + self._heal.healed_ns
        else:
            begin = max(start, min(start + int(self._experiment.recovery.within), end - STABLE_NS))
        return ((begin, end),) if end > begin else ()

    # -- judging one measure -------------------------------------------------------------------------------------------

    def _judged(self, measure: Measure, units: Sequence[Span]) -> tuple[Outcome, str]:
        share = share_interval(*self._marks_of(measure).counts(units), self._experiment.seed)
        if measure.state and share.n >= SAMPLES_MIN and share.value <= measure.allowed:
            return "met", _said(measure, share)
        outcome = rule(share, measure.allowed)
        return outcome, _said(measure, share) + _what_is_missing(measure, share, outcome)

    def _excused(self, measures: Sequence[Measure]) -> frozenset[int]:
        """The worst seconds over any of the thresholds, as many as `exceptFor` excuses, by their place in `during`."""
        counts = [(m.allowed, *self._marks_of(m).counts(self._during)) for m in measures]
        worst = []
        for place in range(len(self._during)):
            over = max(_times_over(bad[place], total[place], allowed) for allowed, bad, total in counts)
            if over > 1:
                worst.append((-over, place))
        budget, excused = self._budget_ns(), set()
        for _, place in sorted(worst):
            length = self._during[place][1] - self._during[place][0]
            if length <= budget:
                budget -= length
                excused.add(place)
        return frozenset(excused)

    def _budget_ns(self) -> int:
        total = sum(end - start for start, end in self._during)
        return min(int(self._experiment.tolerate.except_for), total // 2)

    def _judged_but_for(self, measure: Measure, excused: frozenset[int]) -> tuple[Outcome, str]:
        bad, total = self._marks_of(measure).counts(self._during)
        lengths = [end - start for start, end in self._during]
        over = {place for place in range(len(bad)) if _times_over(bad[place], total[place], measure.allowed) > 1}
        kept = [place for place in range(len(bad)) if place not in excused]
        rest = share_interval([bad[p] for p in kept], [total[p] for p in kept], self._experiment.seed)
        outcome = rule(rest, measure.allowed)
        doubtless = [p for p in kept if p in over and binomial_tail(bad[p], total[p], measure.allowed) < _BEYOND_DOUBT]
        lost_ns = sum(lengths[p] * bad[p] / total[p] for p in doubtless)
        if outcome == "unclear" and rest.value > measure.allowed and lost_ns > _SLACK_NS:
            outcome = "broken"
        exceeded = Duration(sum(lengths[p] for p in over))
        said = _said(measure, rest)
        if exceeded:
            said = f"exceeded for {exceeded.rounded} in all, {Duration(self._budget_ns())} is excused; outside of that {said}"
        return outcome, said + _what_is_missing(measure, rest, outcome)

    # -- numbers -------------------------------------------------------------------------------------------------------

    def _finding(self, measure: Measure, when: str, judged: tuple[Outcome, str]) -> Finding:
        outcome, reason = judged
        phases = {"before": self._before, "during": self._during, "after": self._after}
        numbers = {name: self._number(measure, units) for name, units in phases.items()}
        shown = {name: number.to_json() for name, number in numbers.items() if number is not None}
        text = f"{measure.expectation}: {measure.text} {when}".rstrip()
        return Finding(text, measure.series, outcome, reason, measure.threshold, _UNITS[measure.kind], shown)

    def _number(self, measure: Measure, units: Sequence[Span]) -> Interval | None:
        key = (measure.series, measure.kind, *units[:1], *units[-1:])
        if key not in self._numbers:
            self._numbers[key] = self._counted(measure, units)
        return self._numbers[key]

    def _counted(self, measure: Measure, units: Sequence[Span]) -> Interval | None:
        if measure.kind == "latency":
            return quantile_interval(self._columns[measure.series].latencies, units, 0.95, self._experiment.seed)
        if measure.kind == "gauge":
            return _median(self._columns[measure.series], units)
        share = share_interval(*self._marks_of(measure).counts(units), self._experiment.seed)
        return share if share.n else None

    def _marks_of(self, measure: Measure) -> Marks:
        key = (measure.series, measure.what, measure.limit, measure.least, measure.most)
        if key not in self._marks:
            self._marks[key] = measure.marks(self._columns[measure.series])
        return self._marks[key]


def _median(columns: Columns, units: Sequence[Span]) -> Interval | None:
    """The median of a gauge with its order-statistics interval (the whole range where there are fewer than six samples)."""
    times, gauge = columns.gauge
    values = sorted(value for span in merged(units) for value in gauge[slice(*cut(times, *span))])
    if not values:
        return None
    n = len(values)
    lower, upper = binomial_ranks(n, 0.5)
    return Interval(values[(n - 1) // 2], values[max(lower, 1) - 1], values[min(upper, n) - 1], n)


def _times_over(bad: int, total: int, allowed: float) -> float:
    """How many times what is allowed a second's share is; above 1 it exceeds."""
    return bad / (total * max(allowed, FINEST)) if bad > total * allowed else 0.0


def _said(measure: Measure, share: Interval) -> str:
    if share.n == 0:
        return "no request was answered" if measure.kind == "latency" else "no samples"
    verb = {"errors": "failed", "latency": f"took longer than {Duration(measure.limit)}", "gauge": "lay outside"}[
        measure.kind
    ]
    sure = f"{_percent(share.low)} to {_percent(share.high)}"
    return (
        f"{_percent(share.value)} of {share.n} {verb} ({sure} with 95% confidence; {Ratio(measure.allowed)} is allowed)"
    )


def _what_is_missing(measure: Measure, share: Interval, outcome: Outcome) -> str:
    """What a person can do about a finding that is unclear."""
    needed = samples_needed(measure.allowed)
    if outcome != "unclear":
        return ""
    if share.n < needed:
        return f": too few samples to tell, at least {needed} are needed (sample oftener, watch longer, or allow more)"
    return ": too close to tell with this many samples"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
