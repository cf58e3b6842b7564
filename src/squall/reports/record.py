"""What a run was, in one frozen data model: every format of report derives from a `RunRecord` and from nothing else.

Times named `_s` are seconds since the run began; latencies are nanoseconds; ratios are 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from squall.events import Finding, Verdict

__all__ = [
    "PHASES",
    "Abort",
    "Bucket",
    "Density",
    "Ending",
    "FaultRecord",
    "GaugePoint",
    "GaugeSeries",
    "Judgement",
    "Moment",
    "Phase",
    "PhaseStats",
    "Plan",
    "RequestSeries",
    "RunRecord",
    "SelectedTarget",
    "StageSpan",
    "Threshold",
    "Tone",
    "UndoStep",
    "Window",
]

Phase = Literal["before", "during", "after"]
PHASES: tuple[Phase, ...] = ("before", "during", "after")

Tone = Literal["plain", "fault", "good", "bad"]
"""How a moment of the timeline is to be taken."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict with its evidence; `by_analysis` is False where the run ended before it was judged."""

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...] = ()
    detect_ns: int | None = None
    recover_ns: int | None = None
    by_analysis: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How the run ended: by itself, with its engine dead, or not yet.

    `after_death_s` is how long after the engine's last sign of life the last action was undone, by `recovered_by`;
    `open_steps` counts what was not undone.
    """

    how: Literal["finished", "died", "running", "never-began"]
    exit_status: int | None = None
    residue: tuple[str, ...] = ()
    signal: str | None = None
    last_sign_s: float = 0.0
    after_death_s: float | None = None
    recovered_by: str = ""
    open_steps: int = 0


@dataclass(frozen=True, slots=True)
class Abort:
    """The run was cut short, and why."""

    at_s: float
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageSpan:
    """One of the five stages, from its event to the next one's."""

    stage: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """A time during which a fault was on; `end_known` is False where nothing in the run's files tells when it ended."""

    start_s: float
    end_s: float
    end_known: bool = True


@dataclass(frozen=True, slots=True)
class SelectedTarget:
    """One target: a title and what is known of it, as it identified itself."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a fault was made real on one target."""

    target: str
    mechanism: str
    recoverability: str
    accuracy: str
    not_covered: tuple[str, ...]
    actions: tuple[str, ...]
    undos: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    """Mechanism and reason, for each that was not taken."""


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """One fault of the run: what was asked, on whom, how, when, and how often it hit."""

    id: str
    type: str
    parameters: dict[str, Any]
    matched: int
    targets: tuple[SelectedTarget, ...]
    plans: tuple[Plan, ...]
    windows: tuple[Window, ...]
    pulses: int
    """How often it was switched on; more than there are windows where neighbours were merged for the chart."""
    took_on_ns: int | None
    """From the decision to the last action done, the slowest of all times."""
    took_off_ns: int | None
    hits: dict[str, int]


@dataclass(frozen=True, slots=True)
class UndoStep:
    """One action on the machine: when it was done, when and by whom it was taken back, and what was then seen."""

    entry: int
    fault: str
    action: str
    description: str
    done_s: float | None
    undone_s: float | None
    verified: bool | None
    by: str
    detail: str
    state: Literal["undone", "open", "irreversible"] = "undone"
    by_hand: str = ""
    """What takes an open step back, as a person could do it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline."""

    at_s: float
    tone: Tone
    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhaseStats:
    """What the requests of one series did in one phase; latencies None where none was measured."""

    phase: Phase
    requests: int
    errors: int
    p50_ns: float | None
    p95_ns: float | None
    p99_ns: float | None

    @property
    def error_rate(self) -> float | None:
        """The share of requests that failed; None without requests."""
        return self.errors / self.requests if self.requests else None


class Bucket(NamedTuple):
    """A stretch of time of one series; latencies in ns, None where none was measured."""

    at_s: float
    requests: int
    errors: int
    p50_ns: float | None
    p95_ns: float | None
    p99_ns: float | None


@dataclass(frozen=True, slots=True)
class Density:
    """How many requests fell into each cell of time x latency: one row per `ratio` of latency, from `floor_ns` up."""

    floor_ns: float
    ratio: float
    rows: int
    cells: tuple[tuple[tuple[int, int], ...], ...]
    """For each bucket the rows that are not empty: (row, count)."""


@dataclass(frozen=True, slots=True)
class RequestSeries:
    """Requests of one probe or load over time: at most `series.BUCKETS_MAX` buckets whatever the run's length."""

    name: str
    width_s: float
    buckets: tuple[Bucket, ...]
    phases: tuple[PhaseStats, PhaseStats, PhaseStats]
    density: Density
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many there were in all."""
        return sum(bucket.requests for bucket in self.buckets)


class GaugePoint(NamedTuple):
    """A stretch of time of a gauge."""

    at_s: float
    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class GaugeSeries:
    """A value over time: memory, CPU, a query's answer; or `alive`, the share of a process probe's looks that succeeded."""

    name: str
    points: tuple[GaugePoint, ...]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit that the run was judged by: which one, on what, for which series."""

    role: Literal["steady", "tolerate", "abort"]
    quantity: Literal["p95", "error-rate"]
    value: float
    """Nanoseconds or a ratio."""
    series: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a report tells of one run."""

    folder: Path
    run: str
    name: str
    description: str
    seed: int
    squall: str
    host: dict[str, Any]
    source: str
    """The document as text."""
    document: dict[str, Any]
    started_wall_ns: int
    started_mono_ns: int
    length_s: float
    judgement: Judgement
    ending: Ending
    abort: Abort | None
    stages: tuple[StageSpan, ...]
    faults: tuple[FaultRecord, ...]
    undo: tuple[UndoStep, ...]
    timeline: tuple[Moment, ...]
    requests: tuple[RequestSeries, ...]
    gauges: tuple[GaugeSeries, ...]
    thresholds: tuple[Threshold, ...]
    trace_id: str = ""
    """The run's trace; empty where it was not traced."""
    trace_url: str = ""
    """Where that can be looked at; empty where nobody said."""
    load_behind: str = ""
    """Why the load could not be sent as intended; empty where it could."""
    notes: tuple[str, ...] = ()
    """What is odd about the files themselves: damaged lines, events of a newer Squall."""

    @property
    def injected(self) -> Window | None:
        """From the first moment that a fault was on to the last; None where nothing was injected."""
        windows = [window for fault in self.faults for window in fault.windows]
        if not windows:
            return None
        end = max(windows, key=lambda window: window.end_s)
        return Window(min(window.start_s for window in windows), end.end_s, end.end_known)

    @property
    def main(self) -> RequestSeries | None:
        """The series with the most requests: what the charts and the summary show first."""
        return max(self.requests, key=lambda series: series.requests, default=None)
