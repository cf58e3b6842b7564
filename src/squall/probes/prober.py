"""Runs all probes of an experiment at once, each at its own period, and hands on what they measure.

A probe's samples are *meant* for its start plus whole periods, and latency counts from there. While one sample is
running no other is started, so periods are missed when a target stalls; left at that, a stall of a minute would count
as one slow sample (coordinated omission). Each missed one is therefore stood in for: it gets the outcome of the sample
that was in its way and the latency from its own intended time to that sample's end, which is what it would have met.
(The correction of HdrHistogram's `recordValueWithExpectedInterval`.) `missed` says how many there were. A process or
runtime probe is never stood in for: looking at the kernel's records does not wait for the target.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

from squall.probes.registry import build
from squall.probes.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from squall.probes.registry import Sampler
    from squall.probes.spec import Probe
    from squall.probes.traceparent import Marks

__all__ = ["Prober"]

STAND_INS_MOST = 10_000
"""Of one sample; at the shortest period that is 100 s, and more than a time-out's worth tells nothing new."""
APART_NS = 10_000_000
_GRACE_S = 3.0
"""A sample that is this much over its probe's time-out is cancelled."""


class Prober:
    """Samples while it is entered; `on_samples` is called in the event loop with each probe's batch.

    `marks` says by a probe's name what its requests take along of the run's trace.

    Whatever a probe does is data. What `on_samples` raises is not: it ends the prober, and leaving (`async with`) raises
    it in an ExceptionGroup. Raises InputError, at once, for a probe that cannot be built.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        on_samples: Callable[[list[Sample]], None],
        marks: Mapping[str, Marks] | None = None,
    ) -> None:
        self._on_samples = on_samples
        self._running = [(probe, build(probe, (marks or {}).get(probe.name))) for probe in probes]
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.missed = {probe.name: 0 for probe in probes}
        """By probe: periods in which no sample was started."""

    def series(self) -> tuple[str, ...]:
        """The names of all series, in the order of the probes."""
        return tuple(name for _, sampler in self._running for name in sampler.series())

    def last_failure(self, name: str) -> str:
        """Why the latest failed sample of this probe failed, for people; empty when none has."""
        return next((sampler.last_failure for probe, sampler in self._running if probe.name == name), "")

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        begin_ns = time.monotonic_ns()
        self._tasks = [
            self._group.create_task(
                self._keep_sampling(probe, sampler, begin_ns + self._offset(number, probe)), name=f"probe {probe.name}"
            )
            for number, (probe, sampler) in enumerate(self._running)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            if self._group is not None:
                await self._group.__aexit__(kind, error, trace)
        finally:
            for _, sampler in self._running:
                with contextlib.suppress(Exception):  # what a probe still does cannot matter any more
                    await sampler.close()

    def _offset(self, number: int, probe: Probe) -> int:
        """Probes start a little apart, so that none waits for the work of the others and counts that as latency."""
        return number * min(APART_NS, int(probe.every) // len(self._running))

    async def _keep_sampling(self, probe: Probe, sampler: Sampler, begin_ns: int) -> None:
        every_ns, slot = int(probe.every), 0
        while True:
            intended_ns = begin_ns + slot * every_ns
            wait_ns = intended_ns - time.monotonic_ns()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / 1e9)
            samples = [_from_intended(one, intended_ns) for one in await self._sample(probe, sampler)]
            following = max(slot + 1, (time.monotonic_ns() - begin_ns) // every_ns + 1)
            missed = range(slot + 1, following)
            self.missed[probe.name] += len(missed)
            if probe.process is None and probe.runtime is None and samples:
                samples += _stand_ins(samples[0], [begin_ns + one * every_ns for one in missed[:STAND_INS_MOST]])
            if samples:
                self._on_samples(samples)
            slot = following

    async def _sample(self, probe: Probe, sampler: Sampler) -> list[Sample]:
        """One sample, whatever the probe does."""
        begun_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(probe.timeout.seconds + _GRACE_S):
                return await sampler.sample()
        except TimeoutError:
            outcome = "timeout"
            sampler.last_failure = f"the probe itself did not end within {probe.timeout} and {_GRACE_S:g} s"
        except Exception as error:  # noqa: BLE001 - a probe that fails in a way nobody thought of is data too
            outcome = "error"
            sampler.last_failure = f"{type(error).__name__}: {error}"
        return [Sample(probe.name, begun_ns, time.monotonic_ns() - begun_ns, outcome)]  # type: ignore[arg-type]  # both are outcomes


def _from_intended(sample: Sample, intended_ns: int) -> Sample:
    """The sample as counted from when it was meant to be taken; a gauge holds for the moment it was read."""
    if sample.outcome == "value":
        return sample
    return sample._replace(time_ns=intended_ns, latency_ns=max(sample.time_ns + sample.latency_ns - intended_ns, 0))


def _stand_ins(sample: Sample, intended: list[int]) -> list[Sample]:
    """What the missed samples would have met, as far as this one lasted."""
    end_ns = sample.time_ns + sample.latency_ns
    return [sample._replace(time_ns=one, latency_ns=end_ns - one, span=0) for one in intended if one < end_ns]
