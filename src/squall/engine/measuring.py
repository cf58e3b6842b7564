"""Takes in every sample of a run: into the file, into the watches that decide while it runs, into the seconds that progress shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.events import ProbeWindow
from squall.probes.samples import Sample, SampleWriter, Series, read_samples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from squall.analysis import AbortWatch

__all__ = ["Measuring"]

_SECOND = 1_000_000_000


class Measuring:
    """The one reader of all probes and the load. A full disk does not stop it: `failure` keeps the first error."""

    def __init__(self, path: Path, series: Sequence[str], abort: AbortWatch) -> None:
        self._path, self._writer = path, SampleWriter(path, series)
        self._abort = abort
        self._window: dict[str, list[Sample]] = {}
        self._window_from_ns = 0
        self.failure: OSError | None = None

    def take(self, samples: list[Sample]) -> None:
        """Take in a batch."""
        for sample in samples:
            self._abort.add(sample)
            self._window.setdefault(sample.series, []).append(sample)
        try:
            self._writer.write(samples)
        except OSError as error:
            self.failure = self.failure or error

    def flush(self) -> None:
        """Hand to the kernel what was taken in: called several times a second, so that a killed engine loses no more."""
        try:
            self._writer.flush()
        except OSError as error:
            self.failure = self.failure or error

    def window(self, now_ns: int) -> list[ProbeWindow]:
        """What has come since the last second's end, once a second; otherwise nothing."""
        if now_ns - self._window_from_ns < _SECOND:
            return []
        self._window_from_ns, window, self._window = now_ns, self._window, {}
        return _summaries(window)

    def so_far(self) -> dict[str, Series]:
        """Everything measured up to now, read back from the file: a long run is not kept in memory."""
        self.flush()
        return read_samples(self._path)

    def close(self) -> None:
        """Write out the rest."""
        self.flush()
        try:
            self._writer.close()
        except OSError as error:
            self.failure = self.failure or error


def _summaries(window: dict[str, list[Sample]]) -> list[ProbeWindow]:
    """One for each probe: a gauge (`stock.rss`) is a value of the probe it belongs to (`stock`)."""
    gauges: dict[str, dict[str, float]] = {}
    for name, samples in window.items():
        if samples[-1].outcome == "value":
            probe, _, value = name.rpartition(".")
            gauges.setdefault(probe, {})[value] = samples[-1].value
    probes = {name for name, samples in window.items() if samples[-1].outcome != "value"} | set(gauges)
    return [_summary(name, window.get(name, []), gauges.get(name, {})) for name in sorted(probes)]


def _summary(name: str, samples: list[Sample], values: dict[str, float]) -> ProbeWindow:
    latencies = sorted(sample.latency_ns for sample in samples)
    return ProbeWindow(
        series=name,
        count=len(samples),
        errors=sum(sample.outcome != "ok" for sample in samples),
        p95_ns=latencies[min(len(latencies) - 1, round(0.95 * len(latencies)))] if latencies else 0,
        values=values,
    )
