"""The numbers of a run from its events and samples; each family's meaning stands in `FAMILIES`, and in the docs from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall import events as ev
from squall.errors import UnitError
from squall.probes.traceparent import RunTrace
from squall.telemetry.numbers import Exemplar, Family, Numbers
from squall.units import Duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.probes.samples import Sample

__all__ = ["FAMILIES", "Figures"]

_OF_A_FAULT = ("experiment", "fault", "type")
FAMILIES = (
    Family("squall_run_info", "gauge", "Always 1: which run this is.", ("experiment", "run", "trace_id", "squall")),
    Family("squall_run_started_timestamp_seconds", "gauge", "When the run began, Unix time.", ("experiment",), "s"),
    Family("squall_stage_active", "gauge", "1 for the stage that the run is in.", ("experiment", "stage")),
    Family("squall_steady_state", "gauge", "Whether the steady state held, before and after.", ("experiment", "when")),
    Family("squall_fault_active", "gauge", "1 while the fault is on, 0 before and after.", _OF_A_FAULT),
    Family("squall_fault_started_timestamp_seconds", "gauge", "When it last began, Unix time.", _OF_A_FAULT, "s"),
    Family(
        "squall_fault_deadline_timestamp_seconds", "gauge", "When it has to be over at the latest, Unix time.",
        _OF_A_FAULT, "s",
    ),
    Family("squall_fault_hits_total", "counter", "What it hit, by what was counted.", (*_OF_A_FAULT, "counter")),
    Family(
        "squall_fault_passed_by_total", "counter", "What it saw and did not hit, by what was counted.",
        (*_OF_A_FAULT, "counter"),
    ),
    Family("squall_actions_open", "gauge", "Steps that changed the machine and are not undone.", ("experiment",)),
    Family(
        "squall_probe_latency_seconds", "histogram", "From when a request was meant to be sent to the end of its answer.",
        ("experiment", "series", "outcome"), "s",
    ),
    Family(
        "squall_probe_requests_total", "counter", "Requests and looks by how they ended; all but ok are errors.",
        ("experiment", "series", "outcome"),
    ),
    Family("squall_probe_value", "gauge", "The latest value of a gauge that is probed.", ("experiment", "series")),
    Family("squall_problems_total", "counter", "What went wrong without ending the run.", ("experiment", "where")),
    Family("squall_run_verdict", "gauge", "1 for the verdict that was reached.", ("experiment", "verdict")),
    Family(
        "squall_time_to_detect_seconds", "gauge", "From the fault's start to its first sign in what is measured.",
        ("experiment",), "s",
    ),
    Family(
        "squall_time_to_recover_seconds", "gauge", "From the fault's end until the steady state held again.",
        ("experiment",), "s",
    ),
    Family("squall_run_residue", "gauge", "What was left behind; 0, one trusts.", ("experiment",)),
    Family("squall_telemetry_dropped_total", "counter", "Events and batches that telemetry had no room for.", ("what",)),
)  # fmt: skip
"""Every family of the platform."""


class Figures:
    """Keeps `numbers` up to date with what is heard."""

    def __init__(self) -> None:
        self.numbers = Numbers(FAMILIES)
        self._name = ""
        self._trace: RunTrace | None = None
        self._wall_minus_mono_ns = 0
        self._faults: list[dict[str, Any]] = []
        self._monitor_wall_ns = 0
        self._open: set[int] = set()

    def hear(self, stamped: ev.Stamped) -> None:
        """Take in one event."""
        stamp, event = stamped.stamp, stamped.event
        self._wall_minus_mono_ns = stamp.wall_ns - stamp.mono_ns
        match event:
            case ev.RunStarted():
                self._begin(stamp, event)
            case ev.FaultStarted() | ev.FaultEnded() | ev.FaultHits():
                self._fault(stamp, event)
            case ev.ActionDone():
                self._open.add(event.entry)
                self.numbers.set("squall_actions_open", (self._name,), len(self._open))
            case ev.ActionUndone():
                self._open -= {event.entry} if event.verified else set()
                self.numbers.set("squall_actions_open", (self._name,), len(self._open))
            case _:
                self._course(stamp, event)

    def _begin(self, stamp: ev.Stamp, event: ev.RunStarted) -> None:
        self._name = event.name
        self._trace = RunTrace.read(event.trace)
        trace_id = self._trace.trace_id if self._trace is not None else ""
        self.numbers.set("squall_run_info", (event.name, stamp.run, trace_id, event.squall), 1)
        self.numbers.set("squall_run_started_timestamp_seconds", (event.name,), stamp.wall_ns / 1e9)
        self._faults = list(event.document.get("spec", {}).get("faults", ()))
        for number, fault in enumerate(self._faults):
            self.numbers.set("squall_fault_active", (self._name, f"{number}-{fault['type']}", fault["type"]), 0)

    def _course(self, stamp: ev.Stamp, event: ev.Event) -> None:
        name, numbers = self._name, self.numbers
        match event:
            case ev.StageEntered():
                numbers.drop("squall_stage_active")
                numbers.set("squall_stage_active", (name, event.stage), 1)
                if event.stage == "monitor":
                    self._monitor_wall_ns = stamp.wall_ns
            case ev.SteadyStateChecked():
                numbers.set("squall_steady_state", (name, event.when), float(event.holds))
            case ev.Problem():
                numbers.add("squall_problems_total", (name, event.where))
            case ev.VerdictReached():
                numbers.set("squall_run_verdict", (name, event.verdict), 1)
                if event.detect_ns is not None:
                    numbers.set("squall_time_to_detect_seconds", (name,), event.detect_ns / 1e9)
                if event.recover_ns is not None:
                    numbers.set("squall_time_to_recover_seconds", (name,), event.recover_ns / 1e9)
            case ev.RunFinished():
                numbers.drop("squall_stage_active")
                numbers.set("squall_run_residue", (name,), len(event.residue))
            case _:
                pass

    def _fault(self, stamp: ev.Stamp, event: ev.FaultStarted | ev.FaultEnded | ev.FaultHits) -> None:
        number, _, tag = event.fault.partition("-")
        labels, numbers = (self._name, event.fault, tag), self.numbers
        if isinstance(event, ev.FaultHits):
            for counter, count in event.counters.items():
                if not counter.endswith(ev.MEASURED):
                    what = "passed_by" if counter in ev.PASSED_BY else "hits"
                    numbers.set(f"squall_fault_{what}_total", (*labels, counter), count)
            return
        on = isinstance(event, ev.FaultStarted)
        numbers.set("squall_fault_active", labels, float(on))
        if on:
            numbers.set("squall_fault_started_timestamp_seconds", labels, (stamp.wall_ns - event.took_ns) / 1e9)
            numbers.set("squall_fault_deadline_timestamp_seconds", labels, self._deadline_ns(int(number)) / 1e9)

    def _deadline_ns(self, number: int) -> int:
        fault = self._faults[number]
        try:
            return self._monitor_wall_ns + Duration.parse(fault["after"]) + Duration.parse(fault["duration"])
        except (KeyError, UnitError):  # a document of another Squall
            return self._monitor_wall_ns

    def take(self, samples: Iterable[Sample]) -> None:
        """Take in a batch of samples."""
        name, numbers = self._name, self.numbers
        for one in samples:
            if one.outcome == "value":
                numbers.set("squall_probe_value", (name, one.series), one.value)
                continue
            labels = (name, one.series, one.outcome)
            numbers.add("squall_probe_requests_total", labels)
            if one.latency_ns:
                seconds = one.latency_ns / 1e9
                numbers.observe("squall_probe_latency_seconds", labels, seconds, self._exemplar(one, seconds))

    def _exemplar(self, sample: Sample, seconds: float) -> Exemplar | None:
        if not sample.span or self._trace is None:
            return None
        ended_ns = sample.time_ns + sample.latency_ns + self._wall_minus_mono_ns
        return Exemplar(self._trace.trace_id, f"{sample.span:016x}", seconds, ended_ns)
