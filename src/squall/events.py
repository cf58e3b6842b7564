"""Everything that happens in a run, as typed frozen events: the one stream that all watchers read.

The engine stamps each event (run id, sequence number, wall and monotonic time) and appends it to the run's
`events.jsonl`; progress, reports, metrics and comparisons are readers of that file. Fields hold JSON values only.
Reading is forgiving where writing is strict: an unknown kind becomes `UnknownEvent`, an unknown field is dropped, so
that an older Squall can still show the run of a newer one.

General layout: `Stamp` (when and where in the stream), `Event` (the base), one frozen class a kind, `encode`/`decode`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

__all__ = [
    "KINDS",
    "MEASURED",
    "PASSED_BY",
    "AbortTriggered",
    "ActionDone",
    "ActionUndone",
    "Event",
    "FaultAdjusted",
    "FaultEnded",
    "FaultHits",
    "FaultStarted",
    "Finding",
    "Interrupted",
    "LoadBehind",
    "PlanChosen",
    "ProbeWindow",
    "Problem",
    "RunFinished",
    "RunStarted",
    "Stage",
    "StageEntered",
    "Stamp",
    "Stamped",
    "SteadyStateChecked",
    "TargetFollowed",
    "TargetLost",
    "TargetsSelected",
    "UnknownEvent",
    "Verdict",
    "VerdictReached",
    "decode",
    "encode",
]

Stage = Literal["define", "inject", "monitor", "analyse", "recover"]
"""The five verbs, always in this order, always ending in recover."""

Verdict = Literal["passed", "failed", "inconclusive", "aborted"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where in its run an event stands: `seq` counts from 0 without gaps; `wall_ns` is Unix time; `mono_ns` is CLOCK_MONOTONIC."""

    run: str
    seq: int
    wall_ns: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events; `kind` is the tag in the file."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event as it stands in the stream."""

    stamp: Stamp
    event: Event


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """The run exists: its folder, journal and guardian are there; nothing is injected yet."""

    kind: ClassVar[str] = "run-started"
    name: str
    seed: int
    squall: str
    host: dict[str, Any]
    """hostname, kernel, cpus, python."""
    document: dict[str, Any]
    """The experiment as validated, defaults filled in, secrets left as references."""
    trace: str = ""
    """The run's own span, as a W3C `traceparent`; empty where the run is not traced."""
    trace_parent: str = ""
    """The id of the span that the run is part of, where its caller gave one."""
    trace_url: str = ""
    """Where the trace can be looked at."""


@dataclass(frozen=True, slots=True)
class StageEntered(Event):
    """A stage begins; `expected_ns` is how long it should take (0: not known)."""

    kind: ClassVar[str] = "stage-entered"
    stage: Stage
    expected_ns: int = 0


@dataclass(frozen=True, slots=True)
class TargetsSelected(Event):
    """What a fault will hit, out of what matched; each target as `Target.to_json()` gives it."""

    kind: ClassVar[str] = "targets-selected"
    fault: str
    """The fault's id in this run: `<index>-<type>`, for example `0-tcp.latency`."""
    matched: int
    selected: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PlanChosen(Event):
    """How a fault is made real on one target, and why not by another mechanism."""

    kind: ClassVar[str] = "plan-chosen"
    fault: str
    type: str
    target: str
    mechanism: str
    recoverability: str
    accuracy: str
    not_covered: list[str]
    actions: list[str]
    undos: list[str]
    refused: list[dict[str, str]]
    """`{"mechanism": ..., "reason": ...}` for each that was not taken."""
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FaultStarted(Event):
    """A fault is on (again, when it is pulsed); `took_ns` is from the decision to the last action done."""

    kind: ClassVar[str] = "fault-started"
    fault: str
    took_ns: int


@dataclass(frozen=True, slots=True)
class FaultAdjusted(Event):
    """A running fault changed its parameters without a gap."""

    kind: ClassVar[str] = "fault-adjusted"
    fault: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FaultEnded(Event):
    """A fault is off (until its next pulse, when it is pulsed); `took_ns` is from the decision to the last undo verified."""

    kind: ClassVar[str] = "fault-ended"
    fault: str
    took_ns: int


MEASURED = "_us"
"""The end of the names of counters that are no counts but times."""
PASSED_BY = frozenset({
    "away", "bound", "crowded", "ended", "failed", "foreign", "led", "left", "missed", "not_http", "tls", "unanswered",
    "unfollowed", "unserved",
})  # fmt: skip
"""The names of counters of what a fault saw and did not hit."""


@dataclass(frozen=True, slots=True)
class FaultHits(Event):
    """How often a fault has hit so far: `{"connections": 12, "bytes": 3400}`; published while it is on and at its end.

    A counter whose name ends with MEASURED is a time in microseconds, the longest of several: "injected_p99_us".
    """

    kind: ClassVar[str] = "fault-hits"
    fault: str
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class ActionDone(Event):
    """One step that changed the machine; `entry` is its number in the journal."""

    kind: ClassVar[str] = "action-done"
    entry: int
    fault: str
    action: str
    description: str


@dataclass(frozen=True, slots=True)
class ActionUndone(Event):
    """One step was taken back and its object looked at: `verified` is what was seen, `by` who did it."""

    kind: ClassVar[str] = "action-undone"
    entry: int
    fault: str
    action: str
    description: str
    verified: bool
    detail: str = ""
    by: str = "engine"


@dataclass(frozen=True, slots=True)
class TargetLost(Event):
    """A target ended (or was replaced) during the run."""

    kind: ClassVar[str] = "target-lost"
    fault: str
    target: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TargetFollowed(Event):
    """A restarted target was found again and the fault put on it."""

    kind: ClassVar[str] = "target-followed"
    fault: str
    old: dict[str, Any]
    new: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProbeWindow(Event):
    """One second of one series, as progress shows it: counts, and the p95 of the latencies that ended in it (0: none)."""

    kind: ClassVar[str] = "probe-window"
    series: str
    count: int
    errors: int
    p95_ns: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SteadyStateChecked(Event):
    """The steady state was judged, before the fault or after it."""

    kind: ClassVar[str] = "steady-state-checked"
    when: Literal["before", "after"]
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class AbortTriggered(Event):
    """The ceiling was crossed, or the run lost what it needs to be safe (`cause`)."""

    kind: ClassVar[str] = "abort-triggered"
    cause: Literal["ceiling", "guardian-lost", "deadline", "stopped", "halted", "error"]
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interrupted(Event):
    """A signal asked the engine to end; recovery follows."""

    kind: ClassVar[str] = "interrupted"
    signal: str


@dataclass(frozen=True, slots=True)
class LoadBehind(Event):
    """The load could not be sent when intended; the verdict cannot be a pass."""

    kind: ClassVar[str] = "load-behind"
    late_p99_ns: int
    unsent: int
    reason: str


@dataclass(frozen=True, slots=True)
class Problem(Event):
    """Something went wrong that does not end the run (a probe cannot be set up, a counter cannot be read)."""

    kind: ClassVar[str] = "problem"
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation with its evidence: the numbers before / during / after, each with a confidence interval.

    `numbers` maps a phase to `{"value": x, "low": x, "high": x, "n": count}`; durations are in ns, ratios 0 to 1.
    """

    expectation: str
    series: str
    outcome: Literal["met", "broken", "unclear"]
    reason: str
    threshold: float | None = None
    unit: Literal["ns", "ratio", "count", ""] = ""
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerdictReached(Event):
    """The judgement; `detect_ns` and `recover_ns` are None where they could not be told."""

    kind: ClassVar[str] = "verdict-reached"
    verdict: Verdict
    reason: str
    findings: list[Finding]
    detect_ns: int | None = None
    recover_ns: int | None = None


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The last event of a run: what the command line exits with, and what was left behind (nothing, one trusts)."""

    kind: ClassVar[str] = "run-finished"
    exit_status: int
    residue: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class UnknownEvent(Event):
    """An event of a kind that this Squall does not know, kept as it was read."""

    kind: ClassVar[str] = "unknown"
    was: str
    data: dict[str, Any]


KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__() if cls.kind != UnknownEvent.kind}
"""Every kind by its tag. (A dataclass with slots is made twice; the second, which is the one in use, wins here.)"""


_STAMP_NUMBERS = ("seq", "wall_ns", "mono_ns")


def encode(stamped: Stamped) -> str:
    """One event as one line of JSON, without the line's end."""
    stamp, event = stamped.stamp, stamped.event
    kind = event.was if isinstance(event, UnknownEvent) else event.kind
    data = event.data if isinstance(event, UnknownEvent) else dataclasses.asdict(event)
    line = {
        "run": stamp.run,
        "seq": stamp.seq,
        "wall_ns": stamp.wall_ns,
        "mono_ns": stamp.mono_ns,
        "kind": kind,
        **data,
    }
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def decode(line: str) -> Stamped:
    """Read one line that `encode` wrote, or that a newer Squall did; raise ValueError for what is no event at all."""
    try:
        data = json.loads(line)
    except RecursionError as error:
        raise ValueError(f"not an event: {line[:80]!r}") from error
    if not isinstance(data, dict):
        data = {}
    run, numbers, kind = data.pop("run", None), [data.pop(key, None) for key in _STAMP_NUMBERS], data.pop("kind", None)
    if not (isinstance(run, str) and isinstance(kind, str) and all(type(number) is int for number in numbers)):
        raise ValueError(f"not an event: {line[:80]!r}")
    stamp = Stamp(run, *numbers)
    cls = KINDS.get(kind)
    if cls is None:
        return Stamped(stamp, UnknownEvent(kind, data))
    known = {f.name for f in dataclasses.fields(cls)}
    arguments = {key: value for key, value in data.items() if key in known}
    try:
        if cls is VerdictReached:
            arguments["findings"] = [_finding(item) for item in arguments["findings"]]
        return Stamped(stamp, cls(**arguments))
    except (TypeError, KeyError, AttributeError):
        return Stamped(stamp, UnknownEvent(kind, data))


def _finding(data: dict[str, Any]) -> Finding:
    known = {f.name for f in dataclasses.fields(Finding)}
    return Finding(**{key: value for key, value in data.items() if key in known})
