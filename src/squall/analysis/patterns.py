"""What was expected of a service's patterns, held against what they said of themselves while the run went on.

Breakers are judged by time: the first sample that shows one open counts, or a count of openings that grew between two
samples (an opening shorter than the sampling period is seen too). Retries and fallbacks are judged by how much their
counters grew between the first fault's start and the last one's end; a counter that falls began anew with its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.analysis.columns import Columns, cut
from squall.analysis.exact import clopper_pearson
from squall.analysis.shares import CONFIDENCE, Interval
from squall.events import Finding
from squall.experiment.patterns import BreakerExpected, FallbacksExpected, RetriesExpected, probes_of
from squall.probes.samples import Series
from squall.units import Duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.analysis.shares import Outcome
    from squall.analysis.windows import Timeline
    from squall.experiment.model import Experiment
    from squall.probes.samples import Sample

__all__ = ["ClosingWatch", "pattern_findings"]

_OPEN = 1.0
_LOOK_NS = 3_000_000_000
"""A counter's value before the fault is looked for so far back, and after its end so far on: some samples' time."""
_CALLS_MIN = 20
"""Of fewer calls no rate is told."""

Gauge = tuple["Sequence[int]", "Sequence[float]"]


class ClosingWatch:
    """Tells when every breaker that is expected to close has done so, so that the run need not watch on."""

    def __init__(self, experiment: Experiment, fault_end_ns: int) -> None:
        self._end_ns = fault_end_ns
        probes = probes_of(experiment.expect)
        self._waiting: dict[str, int] = {}
        for each in (one.breaker for one in experiment.expect):
            if each is not None and each.closes is not None:
                series = f"{probes[each.metrics, each.dependency].name}.open"
                until_ns = fault_end_ns + int(each.closes.within)
                self._waiting[series] = max(until_ns, self._waiting.get(series, 0))

    def add(self, sample: Sample) -> None:
        """Hear a sample."""
        if sample.series in self._waiting and sample.value == 0.0 and sample.time_ns >= self._end_ns:
            del self._waiting[sample.series]

    def done(self, now_ns: int) -> bool:
        """Whether watching on would tell no more of breakers."""
        return all(now_ns >= until_ns for until_ns in self._waiting.values())


def pattern_findings(experiment: Experiment, series: Mapping[str, Series], timeline: Timeline) -> list[Finding]:
    """One finding for each thing that is expected of a pattern; never raises for any samples."""
    probes = probes_of(experiment.expect)
    findings: list[Finding] = []
    for each in experiment.expect:
        name = probes[each.of.metrics, each.of.dependency].name
        seen = _Seen(name, series, timeline)
        if isinstance(each.of, BreakerExpected):
            findings += _breaker(each.of, seen)
        elif isinstance(each.of, RetriesExpected):
            findings.append(_retries(each.of, seen))
        elif isinstance(each.of, FallbacksExpected):
            findings.append(_fallbacks(each.of, seen))
    return findings


class _Seen:
    """The values of one probe in one run."""

    def __init__(self, name: str, series: Mapping[str, Series], timeline: Timeline) -> None:
        self.name, self._series = name, series
        self.start_ns = min(start for start, _ in timeline.faults)
        self.fault_end_ns, self.end_ns = timeline.fault_end_ns, timeline.end_ns

    def gauge(self, value: str) -> Gauge:
        """Times and values, in order."""
        name = f"{self.name}.{value}"
        return Columns(self._series.get(name, Series(name))).gauge

    def growth(self, value: str) -> float | None:
        """By how much a counter grew under the faults; None where it was not seen on both sides."""
        times, values = self.gauge(value)
        first, last = cut(times, self.start_ns, self.fault_end_ns)
        begin = max(first - 1, 0) if first and times[first - 1] > self.start_ns - _LOOK_NS else first
        end = last if last < len(times) and times[last] < self.fault_end_ns + _LOOK_NS else last - 1
        if end <= begin:
            return None
        steps = zip(values[begin:end], values[begin + 1 : end + 1], strict=True)
        return sum(new - old if new >= old else new for old, new in steps)

    @property
    def readable(self) -> str:
        """Why nothing can be told, when no sample was read at all."""
        read = Columns(self._series.get(self.name, Series(self.name))).errors
        bad, total = read.counts([(self.start_ns, self.end_ns)])
        if not sum(total):
            return "its metrics were never read"
        return f"its metrics could be read {sum(total) - sum(bad)} of {sum(total)} times"


# -- breakers ----------------------------------------------------------------------------------------------------------


def _breaker(expected: BreakerExpected, seen: _Seen) -> list[Finding]:
    findings = []
    if expected.opens is not None:
        findings.append(_opens(expected, expected.opens.within, seen))
    if expected.closes is not None:
        findings.append(_closes(expected, expected.closes.within, seen))
    return findings


def _opens(expected: BreakerExpected, within: Duration, seen: _Seen) -> Finding:
    text = f"breaker of {expected.dependency}: opens within {within}"
    times, states = seen.gauge("open")
    first = cut(times, seen.start_ns, seen.end_ns)[0]
    if not times[first:]:
        return _told(text, seen, "unclear", f"no state of it was seen: {seen.readable}")
    if first and states[first - 1] == _OPEN:
        return _told(text, seen, "unclear", "it was open before the fault began")
    opened_ns = _first_opening(seen, times, states, first)
    if opened_ns is not None:
        took = Duration(opened_ns - seen.start_ns)
        outcome: Outcome = "met" if took <= within else "broken"
        return _told(text, seen, outcome, f"it opened after {took.rounded}", float(within), {"during": float(took)})
    watched = Duration(seen.end_ns - seen.start_ns)
    if watched < within:
        return _told(
            text, seen, "unclear", f"it did not open, and was watched for {watched.rounded} only", float(within)
        )
    return _told(text, seen, "broken", f"it did not open in {watched.rounded}", float(within))


def _first_opening(seen: _Seen, times: Sequence[int], states: Sequence[float], first: int) -> int | None:
    """The moment at which it was first known to have opened under the fault."""
    moments = [time for time, state in zip(times[first:], states[first:], strict=True) if state == _OPEN][:1]
    counted, counts = seen.gauge("opened")
    begin = max(cut(counted, seen.start_ns, seen.end_ns)[0] - 1, 0)
    pairs = zip(counts[begin:], counts[begin + 1 :], counted[begin + 1 :], strict=False)
    moments += [time for old, new, time in pairs if new > old and time >= seen.start_ns][:1]
    return min(moments, default=None)


def _closes(expected: BreakerExpected, within: Duration, seen: _Seen) -> Finding:
    text = f"breaker of {expected.dependency}: closes within {within}"
    times, states = seen.gauge("open")
    first = cut(times, seen.fault_end_ns, seen.end_ns)[0]
    after = list(zip(times[first:], states[first:], strict=True))
    if not after:
        return _told(text, seen, "unclear", f"no state of it was seen after the fault: {seen.readable}")
    start = cut(times, seen.start_ns, seen.fault_end_ns)[0]
    if not any(states[start:]) and not (seen.growth("opened") or 0):
        return _told(text, seen, "unclear", "it was never open, so it had nothing to close", float(within))
    last_open = max((place for place, (_, state) in enumerate(after) if state), default=-1)
    if last_open + 1 < len(after):
        took = Duration(max(0, after[last_open + 1][0] - seen.fault_end_ns))
        outcome: Outcome = "met" if took <= within else "broken"
        said = f"it was closed {took.rounded} after the fault"
        return _told(text, seen, outcome, said, float(within), {"after": float(took)})
    watched = Duration(seen.end_ns - seen.fault_end_ns)
    if watched < within:
        return _told(
            text, seen, "unclear", f"it had not closed, and was watched for {watched.rounded} only", float(within)
        )
    return _told(text, seen, "broken", f"it had not closed {watched.rounded} after the fault", float(within))


# -- retries and fallbacks ---------------------------------------------------------------------------------------------


def _retries(expected: RetriesExpected, seen: _Seen) -> Finding:
    text = f"retries to {expected.dependency}: amplification <= {expected.amplification:g}"
    calls, attempts = seen.growth("retryCalls"), seen.growth("retryAttempts")
    if calls is None or attempts is None:
        return _told(text, seen, "unclear", f"its counts were not seen on both sides of the fault: {seen.readable}")
    if calls < _CALLS_MIN:
        return _told(
            text, seen, "unclear", f"{calls:g} calls under the fault; at least {_CALLS_MIN} are needed to tell"
        )
    ratio = attempts / calls
    said = f"{attempts:g} were sent for {calls:g} calls: {ratio:.2f} for each"
    outcome: Outcome = "met" if ratio <= expected.amplification else "broken"
    numbers = {"during": Interval(ratio, ratio, ratio, int(calls)).to_json()}
    return Finding(text, seen.name, outcome, said, float(expected.amplification), "", numbers)


def _fallbacks(expected: FallbacksExpected, seen: _Seen) -> Finding:
    text = f"fallbacks for {expected.dependency}: rate >= {expected.rate}"
    answered, unanswered = seen.growth("fellBack"), seen.growth("unanswered")
    if answered is None or unanswered is None:
        return _told(text, seen, "unclear", f"its counts were not seen on both sides of the fault: {seen.readable}")
    needed = int(answered + unanswered)
    if needed < _CALLS_MIN:
        said = f"{needed} calls were not answered by {expected.dependency} itself; at least {_CALLS_MIN} are needed to tell"
        return _told(text, seen, "unclear", said)
    low, high = clopper_pearson(int(answered), needed, CONFIDENCE)
    rate = answered / needed
    said = f"{answered:g} of {needed} calls that {expected.dependency} did not answer were answered from elsewhere ({rate:.1%})"
    outcome: Outcome = "met" if rate >= float(expected.rate) else "broken" if high < float(expected.rate) else "unclear"
    numbers = {"during": Interval(rate, low, high, needed).to_json()}
    return Finding(text, seen.name, outcome, said, float(expected.rate), "ratio", numbers)


def _told(
    text: str,
    seen: _Seen,
    outcome: Outcome,
    reason: str,
    within_ns: float | None = None,
    took_ns: dict[str, float] | None = None,
) -> Finding:
    numbers = {phase: Interval(ns, ns, ns, 1).to_json() for phase, ns in (took_ns or {}).items()}
    return Finding(text, seen.name, outcome, reason, within_ns, "ns" if within_ns is not None else "", numbers)
