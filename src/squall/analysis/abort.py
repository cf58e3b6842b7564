"""The ceiling, watched while the run goes on: when to end the fault at once, and with what evidence.

A request becomes known when it ends, so the trailing window is by the end of requests, not by their intended time: a
time-out of 10 s could never be seen in a window of 5 s otherwise. What has not ended yet is not a sample; a caller that
knows which requests are waiting passes their intended times, and those that already wait longer than the ceiling count
as slow. Without that, a stall is seen when its first requests time out.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.analysis.sequential import share_is_above
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.analysis.measures import Measure
    from squall.experiment.model import Abort
    from squall.probes.samples import Sample

__all__ = ["AbortDecision", "AbortWatch"]

_SEQUENTIAL_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class AbortDecision:
    """The ceiling was crossed: what to say, and the numbers, as `AbortTriggered` carries them."""

    reason: str
    evidence: dict[str, float | str]


class AbortWatch:
    """Watches the ceiling of every series; made with `ceiling_measures(experiment)` and `experiment.abort`.

    Feed it all samples as they arrive, from the baseline on; call `fault_starts` when the first fault goes on (the
    sequential bound counts from there) and `check` about once a second. Amortised O(log n) a sample.
    """

    def __init__(self, measures: Sequence[Measure], abort: Abort) -> None:
        self._abort = abort
        self._by_series: dict[str, list[_Trailing]] = {}
        for measure in measures:
            self._by_series.setdefault(measure.series, []).append(_Trailing(measure, int(abort.for_), abort.samples))

    def fault_starts(self, now_ns: int) -> None:
        """From now on the errors are counted for the sequential bound: of requests meant to be sent from now on."""
        for trailing in self._all():
            trailing.count_from(now_ns)

    def add(self, sample: Sample) -> None:
        """One more sample; those of series without a ceiling are passed over."""
        for trailing in self._by_series.get(sample.series, ()):
            trailing.add(sample)

    def check(self, now_ns: int, waiting: Mapping[str, Sequence[int]] | None = None) -> AbortDecision | None:
        """Whether the ceiling is crossed now; `waiting`: for each series the intended times of unanswered requests."""
        for trailing in self._all():
            trailing.move_to(now_ns, waiting.get(trailing.measure.series, ()) if waiting else ())
        crossed = [trailing for trailing in self._all() if trailing.distance() > 1]
        return crossed[0].decision(self._abort) if crossed else None

    def distance(self) -> float:
        """How near the ceiling was at the last check: 0 far, 1 at it; the nearest of all series.

        The share of bad samples in the window over the share that aborts, whatever the number of samples.
        """
        return max((trailing.nearness() for trailing in self._all()), default=0.0)

    def _all(self) -> list[_Trailing]:
        return [trailing for group in self._by_series.values() for trailing in group]


class _Trailing:
    """One measure over the trailing window, in order of the requests' ends."""

    def __init__(self, measure: Measure, window_ns: int, samples: int) -> None:
        self.measure, self._window_ns, self._samples = measure, window_ns, samples
        self._ended: list[tuple[int, bool]] = []
        """A heap by end: samples come nearly in that order, and leave from the front."""
        self._bad = 0
        self._n, self._n_bad, self._waiting_bad = 0, 0, 0
        self._from_ns: int | None = None
        self._all, self._all_bad = 0, 0

    def count_from(self, now_ns: int) -> None:
        self._from_ns = now_ns
        self._all = self._all_bad = 0

    def add(self, sample: Sample) -> None:
        bad = self.measure.is_bad(sample)
        if bad is None:
            return
        if self.measure.kind == "latency" and sample.latency_ns < self.measure.limit:
            bad = False  # given up before the ceiling: how long it would have taken nobody knows; it is an error, and counted there
        heapq.heappush(self._ended, (sample.time_ns + max(0, sample.latency_ns), bad))
        self._bad += bad
        if self._from_ns is not None and sample.time_ns >= self._from_ns:
            self._all += 1
            self._all_bad += bad

    def move_to(self, now_ns: int, waiting: Sequence[int]) -> None:
        while self._ended and self._ended[0][0] <= now_ns - self._window_ns:
            self._bad -= heapq.heappop(self._ended)[1]
        slow = sum(now_ns - at > self.measure.limit for at in waiting) if self.measure.kind == "latency" else 0
        self._n, self._n_bad, self._waiting_bad = len(self._ended) + slow, self._bad + slow, slow

    def nearness(self) -> float:
        if self._n == 0:
            return 0.0
        return self._n_bad / self._n / self.measure.allowed if self.measure.allowed > 0 else float(self._n_bad > 0)

    def distance(self) -> float:
        """As `nearness`, but 0 while there are too few samples."""
        enough = self._n >= self._samples
        if self.measure.allowed <= 0:
            return 2.0 if enough and self._n_bad else 0.0
        return self.nearness() if enough else 0.0

    def decision(self, abort: Abort) -> AbortDecision:
        share = self._n_bad / self._n
        what = self.measure
        if what.kind == "errors":
            said = f"{share:.1%} of {self._n} requests failed in the last {Duration(self._window_ns)}; the ceiling is {abort.error_rate}"
        else:
            said = (
                f"{share:.1%} of {self._n} requests took longer than {abort.p95} in the last {Duration(self._window_ns)}; "
                f"the ceiling is a p95 of {abort.p95} (5%)"
            )
        above = share_is_above(self._all_bad, self._all, _SEQUENTIAL_CONFIDENCE)
        evidence: dict[str, float | str] = {
            "series": what.series, "measure": what.what, "share": share, "allowed": what.allowed, "bad": self._n_bad,
            "samples": self._n, "waiting": self._waiting_bad, "window_ns": self._window_ns,
            "since_fault_bad": self._all_bad, "since_fault_samples": self._all,
            "share_is_above": above, "confidence": _SEQUENTIAL_CONFIDENCE,
        }  # fmt: skip
        if what.kind == "latency":
            evidence["limit_ns"] = what.limit
        if above > 0:
            said += f" (since the fault began the share is above {Ratio(round(above, 4))} with 99% confidence, however often one looks)"
        return AbortDecision(f"{what.series}: {said}", evidence)
