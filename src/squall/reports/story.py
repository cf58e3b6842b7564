"""From the stream of events to what happened: one `Story` is fed every event in order and keeps what reports tell.

General layout: `Story.take` sorts events into the run's course, its faults, its actions and its troubles; each of these
keeps its part and adds a line to the timeline. Values in events are JSON that anybody may have written: an event that
does not hold what its kind promises raises, and the caller counts it as damaged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from squall import events as ev
from squall.probes.traceparent import RunTrace
from squall.reports.evidence import judgement_from
from squall.reports.record import Abort, Judgement, Moment, Plan, SelectedTarget, UndoStep
from squall.reports.wording import duration, one_line

if TYPE_CHECKING:
    from squall.reports.record import Tone

__all__ = ["FaultStory", "Story"]

MOMENTS_MAX = 400
_NS_MAX = 1 << 63

_TITLE_KEYS = ("label", "command", "name", "title", "comm", "path", "listen", "kind")


@dataclass(slots=True)
class FaultStory:
    """What the events tell of one fault; `on` holds the times of each start and end (None while it is on)."""

    id: str
    type: str
    parameters: dict[str, Any] = field(default_factory=dict)
    matched: int = 0
    targets: list[SelectedTarget] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    on: list[tuple[float, float | None]] = field(default_factory=list)
    took_on_ns: int | None = None
    took_off_ns: int | None = None
    hits: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Story:
    """The run so far."""

    started: ev.RunStarted | None = None
    first: ev.Stamp | None = None
    last_s: float = 0.0
    stages: list[tuple[str, float]] = field(default_factory=list)
    faults: dict[str, FaultStory] = field(default_factory=dict)
    steps: dict[int, UndoStep] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    left_out: int = 0
    judgement: Judgement | None = None
    finished: ev.RunFinished | None = None
    abort: Abort | None = None
    signal: str | None = None
    load_behind: str = ""
    unknown: dict[str, int] = field(default_factory=dict)

    def take(self, stamped: ev.Stamped) -> None:
        """Add one event; TypeError, ValueError, OverflowError, AttributeError or KeyError where it is not what its kind promises."""
        times: list[object] = [stamped.stamp.mono_ns, stamped.stamp.wall_ns]
        if not all(isinstance(value, int) and abs(value) < _NS_MAX for value in times):
            raise ValueError("an event's times are whole nanoseconds")
        if self.first is None:
            self.first = stamped.stamp
        at_s = (stamped.stamp.mono_ns - self.first.mono_ns) / 1e9
        event = stamped.event
        match event:
            case ev.RunStarted() | ev.StageEntered() | ev.SteadyStateChecked() | ev.VerdictReached() | ev.RunFinished():
                self._course(at_s, event)
            case (
                ev.TargetsSelected()
                | ev.PlanChosen()
                | ev.FaultStarted()
                | ev.FaultEnded()
                | ev.FaultAdjusted()
                | ev.FaultHits()
            ):
                self._fault(at_s, event)
            case ev.ActionDone() | ev.ActionUndone():
                self._action(at_s, event)
            case ev.UnknownEvent(was=was):
                self.unknown[str(was)] = self.unknown.get(str(was), 0) + 1
            case _:
                self._trouble(at_s, event)
        self.last_s = max(self.last_s, at_s)

    def _tell(self, at_s: float, tone: Tone, title: str, detail: str = "") -> None:
        if len(self.moments) < MOMENTS_MAX:
            self.moments.append(Moment(at_s, tone, one_line(title, 200), one_line(detail)))
        else:
            self.left_out += 1

    def _course(self, at_s: float, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                parts: list[object] = [event.document, event.host]
                if not all(isinstance(part, dict) for part in parts):
                    raise TypeError("document and host are mappings")
                self.started = dataclasses.replace(
                    event, name=str(event.name), seed=int(event.seed), squall=str(event.squall)
                )
                self._tell(at_s, "plain", "run began", f"journal and guardian in place, seed {event.seed}")
            case ev.StageEntered():
                self.stages.append((str(event.stage), at_s))
                self._tell(at_s, "plain", f"stage: {event.stage}")
            case ev.SteadyStateChecked():
                word = "holds" if event.holds else "does not hold"
                self._tell(at_s, "good" if event.holds else "bad", f"steady state {event.when}: {word}", event.detail)
            case ev.VerdictReached():
                self.judgement = judgement_from(event)
                self._tell(
                    at_s, "good" if event.verdict == "passed" else "bad", f"verdict: {event.verdict}", event.reason
                )
            case ev.RunFinished():
                self.finished = ev.RunFinished(int(event.exit_status), [str(item) for item in event.residue])
                left = f"left behind: {', '.join(map(str, event.residue))}" if event.residue else "nothing left behind"
                self._tell(
                    at_s, "bad" if event.residue else "plain", f"run finished, exit status {event.exit_status}", left
                )

    @property
    def trace(self) -> tuple[str, str]:
        """The id of the run's trace and where that can be looked at; both empty where there is none, or no such thing."""
        trace = RunTrace.read(str(self.started.trace)) if self.started is not None else None
        if self.started is None or trace is None:
            return "", ""
        url = one_line(str(self.started.trace_url), 4000)
        return trace.trace_id, url if url.startswith(("http://", "https://")) else ""

    def _fault(self, at_s: float, event: Any) -> None:
        fault = self.faults.setdefault(str(event.fault), FaultStory(str(event.fault), _type_of(str(event.fault))))
        match event:
            case ev.TargetsSelected():
                fault.matched = int(event.matched)
                fault.targets = [selected_target(item) for item in event.selected]
                names = ", ".join(target.title for target in fault.targets) or "nothing"
                self._tell(
                    at_s, "plain", f"{fault.id}: {len(fault.targets)} of {fault.matched} matches selected", names
                )
            case ev.PlanChosen():
                fault.type, fault.parameters = str(event.type), dict(event.parameters) or fault.parameters
                fault.plans.append(_plan(event))
                self._tell(
                    at_s, "plain", f"{fault.id}: by {event.mechanism}", f"on {event.target}; {event.recoverability}"
                )
            case ev.FaultStarted():
                fault.on.append((at_s, None))
                fault.took_on_ns = max(fault.took_on_ns or 0, int(event.took_ns))
                self._tell(at_s, "fault", f"{fault.id}: on", f"took {duration(event.took_ns)}")
            case ev.FaultEnded():
                if fault.on and fault.on[-1][1] is None:
                    fault.on[-1] = (fault.on[-1][0], at_s)
                fault.took_off_ns = max(fault.took_off_ns or 0, int(event.took_ns))
                self._tell(at_s, "fault", f"{fault.id}: off", f"took {duration(event.took_ns)}")
            case ev.FaultAdjusted():
                fault.parameters = {**fault.parameters, **event.parameters}
                self._tell(
                    at_s, "fault", f"{fault.id}: adjusted", ", ".join(f"{k} {v}" for k, v in event.parameters.items())
                )
            case ev.FaultHits():
                fault.hits = {str(name): int(value) for name, value in event.counters.items()}

    def _action(self, at_s: float, event: ev.ActionDone | ev.ActionUndone) -> None:
        entry, known = int(event.entry), self.steps.get(int(event.entry))
        if isinstance(event, ev.ActionDone):
            self.steps[entry] = UndoStep(
                entry, str(event.fault), str(event.action), str(event.description), at_s, None, None, "", "", "open"
            )
            return
        self.steps[entry] = UndoStep(
            entry, str(event.fault), str(event.action), known.description if known else str(event.description),
            known.done_s if known else None, at_s, bool(event.verified), str(event.by), str(event.detail),
        )  # fmt: skip
        if not event.verified:
            self._tell(at_s, "bad", f"undo not verified: {event.description}", event.detail)

    def _trouble(self, at_s: float, event: ev.Event) -> None:
        match event:
            case ev.AbortTriggered():
                self.abort = self.abort or Abort(at_s, str(event.cause), str(event.reason))
                self._tell(at_s, "bad", f"aborted: {event.cause}", event.reason)
            case ev.Interrupted():
                self.signal = str(event.signal)
                self._tell(at_s, "bad", f"interrupted by {event.signal}", "recovery follows")
            case ev.LoadBehind():
                late = f"p99 late by {duration(event.late_p99_ns)}, {event.unsent} not sent"
                self.load_behind = str(event.reason) or late
                self._tell(at_s, "bad", "the load fell behind", self.load_behind)
            case ev.Problem():
                self._tell(at_s, "bad", f"problem: {event.where}", event.message)
            case ev.TargetLost():
                self._tell(at_s, "fault", f"{event.fault}: target lost", selected_target(event.target).title)
            case ev.TargetFollowed():
                old, new = selected_target(event.old).title, selected_target(event.new).title
                self._tell(at_s, "fault", f"{event.fault}: target followed", f"{old} is now {new}")


def _type_of(fault_id: str) -> str:
    """The type in a fault's id, `<index>-<type>`."""
    return fault_id.partition("-")[2] or fault_id


def _plan(event: ev.PlanChosen) -> Plan:
    return Plan(
        str(event.target), str(event.mechanism), str(event.recoverability), str(event.accuracy),
        tuple(map(str, event.not_covered)), tuple(map(str, event.actions)), tuple(map(str, event.undos)),
        tuple((str(item.get("mechanism", "")), str(item.get("reason", ""))) for item in event.refused),
    )  # fmt: skip


def selected_target(data: dict[str, Any]) -> SelectedTarget:
    """A target as it identified itself: a title to call it by, and every fact, nested ones flattened."""
    facts = tuple(_flat(data))
    known = dict(facts)
    title = next((known[key] for key in _TITLE_KEYS if known.get(key)), "target")
    return SelectedTarget(title, facts)


def _with_time(key: str, value: object) -> str:
    """A fact's text; a start time in clock ticks (100 a second on Linux, proc(5)) is told in people's units too."""
    if key == "start_ticks" and isinstance(value, int):
        return f"{value} ({duration(value * 1e7)} after boot)"
    return str(value)


def _flat(data: dict[str, Any], prefix: str = "", depth: int = 3) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for key, value in list(data.items())[:40]:
        if isinstance(value, dict) and depth:
            facts += _flat(value, f"{prefix}{key}.", depth - 1)
        elif isinstance(value, list):
            facts.append((f"{prefix}{key}", " ".join(map(str, value[:40]))))
        elif value is not None:
            facts.append((f"{prefix}{key}", _with_time(key, value)))
    return facts
