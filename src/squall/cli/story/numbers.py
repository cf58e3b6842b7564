"""What an act came to, counted from the run's own samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.engine import Outcome
    from squall.probes.samples import Series

__all__ = ["HIGH", "Numbers", "Orders", "numbers_of"]

HIGH = "high-priority"
"""The probe that orders with `X-Priority: high`; all others are the load's."""
PHASES = ("before", "fault", "healing", "after")
_SECOND = 1_000_000_000


@dataclass
class Orders:
    """Some orders: how many were sent and how many failed, with their latencies."""

    sent: int = 0
    failed: int = 0
    latencies: list[int] = field(default_factory=list)
    """In ns."""

    def add(self, latency_ns: int, *, ok: bool) -> None:
        """One more."""
        self.sent += 1
        self.failed += not ok
        self.latencies.append(latency_ns)

    @property
    def share(self) -> float:
        """Of those sent, how many failed."""
        return self.failed / self.sent if self.sent else 0.0

    @property
    def p95_s(self) -> float:
        """The 95th percentile of the latency in seconds; what was given up counts with the time it was waited for."""
        ordered = sorted(self.latencies)
        return ordered[int(0.95 * (len(ordered) - 1))] / 1e9 if ordered else 0.0


@dataclass
class Numbers:
    """One act's."""

    phases: dict[str, Orders] = field(default_factory=lambda: {name: Orders() for name in PHASES})
    """All orders, by when they were sent: before, fault, healing, after."""
    high: Orders = field(default_factory=Orders)
    """Those of high priority, under the fault."""
    seconds: list[Orders] = field(default_factory=list)
    """All orders, second by second from 5 s before the fault on."""
    healed_s: float | None = None
    """From the fault's end until the steady state held again and no order waited; None when that was not seen."""

    @property
    def fault(self) -> Orders:
        """All orders under the fault."""
        return self.phases["fault"]


def numbers_of(outcome: Outcome, drained_s: float | None) -> Numbers:
    """Count them; `drained_s` is when no order waited for a worker any more (CLOCK_MONOTONIC)."""
    from squall.probes.samples import OUTCOMES, read_samples

    numbers = Numbers()
    times = _times(outcome)
    if times is None:
        return numbers
    began, ended, healed_ns = times
    healed = max(ended + (healed_ns or 0), round((drained_s or 0) * 1e9))
    if healed_ns is not None and drained_s is not None:
        numbers.healed_s = (healed - ended) / 1e9
    samples = read_samples(outcome.run.samples)
    for name in ("load", HIGH):
        series: Series = samples[name]
        for sent, latency, result in zip(series.time_ns, series.latency_ns, series.outcome, strict=True):
            ok = OUTCOMES[result] == "ok"
            # what was under way when the fault began is the fault's
            phase = (
                "before" if sent + latency < began
                else "fault" if sent < ended
                else "healing" if sent < healed
                else "after"
            )  # fmt: skip
            numbers.phases[phase].add(latency, ok=ok)
            if name == HIGH and phase == "fault":
                numbers.high.add(latency, ok=ok)
            second = (sent - began) // _SECOND + 5
            if 0 <= second < 120:  # noqa: PLR2004 - two minutes are more than any act
                numbers.seconds += [Orders() for _ in range(second + 1 - len(numbers.seconds))]
                numbers.seconds[second].add(latency, ok=ok)
    return numbers


def _times(outcome: Outcome) -> tuple[int, int, int | None] | None:
    """When the fault began and ended, and the time to recover, in ns; None when it never began."""
    from squall.events import FaultEnded, FaultStarted, VerdictReached, decode

    began = ended = healed_ns = None
    for line in outcome.run.events.read_text().splitlines():
        stamped = decode(line)
        if isinstance(stamped.event, FaultStarted):
            began = stamped.stamp.mono_ns
        elif isinstance(stamped.event, FaultEnded):
            ended = stamped.stamp.mono_ns
        elif isinstance(stamped.event, VerdictReached):
            healed_ns = stamped.event.recover_ns
    return (began, ended, healed_ns) if began is not None and ended is not None else None
