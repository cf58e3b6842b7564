"""A run's events as JSON log lines, one object a line, as Loki, and whatever else reads such logs, takes them.

`ts` is RFC 3339 with nanoseconds in UTC; `level` debug, info, warn or error; `msg` a sentence; `run`, `experiment`,
`trace_id`, `span_id`; then what the event says (`kind` and its fields). Few of these are for labels: docs/how-to/telemetry.md.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from squall import events as ev

__all__ = ["line_of", "rfc3339"]

_LEFT_OUT = {"document", "host", "findings", "selected", "actions", "undos", "refused", "trace", "trace_parent"}
"""What would make lines of kilobytes; the run's own files have it."""
_EACH_SECOND = (ev.ProbeWindow, ev.FaultHits)
"""These are numbers: they are in the metrics."""


def rfc3339(wall_ns: int) -> str:
    """Unix time in ns as 2026-11-22T23:50:00.123456789Z."""
    seconds, nanos = divmod(wall_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}Z"


def line_of(stamped: ev.Stamped, experiment: str, trace_id: str, span_id: str) -> str | None:
    """One event as one line without its end; None for what is said every second."""
    stamp, event = stamped.stamp, stamped.event
    if isinstance(event, _EACH_SECOND):
        return None
    fields = event.data if isinstance(event, ev.UnknownEvent) else dataclasses.asdict(event)
    line: dict[str, Any] = {
        "ts": rfc3339(stamp.wall_ns),
        "level": _level(event),
        "msg": _sentence(event),
        "run": stamp.run,
        "experiment": experiment,
        **({"trace_id": trace_id, "span_id": span_id} if trace_id else {}),
        "kind": event.was if isinstance(event, ev.UnknownEvent) else event.kind,
    }
    line |= {name: value for name, value in fields.items() if name not in _LEFT_OUT and name not in line}
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False)


def _level(event: ev.Event) -> str:
    match event:
        case ev.AbortTriggered() | ev.RunFinished(residue=[_, *_]) | ev.ActionUndone(verified=False):
            return "error"
        case ev.VerdictReached(verdict=verdict):
            return {"failed": "error", "aborted": "error", "inconclusive": "warn"}.get(verdict, "info")
        case ev.Problem() | ev.Interrupted() | ev.LoadBehind() | ev.TargetLost() | ev.SteadyStateChecked(holds=False):
            return "warn"
        case ev.FaultStarted() | ev.FaultEnded():  # who looks at a service's errors beside these lines has to see them
            return "warn"
        case ev.ActionDone() | ev.ActionUndone() | ev.PlanChosen() | ev.TargetsSelected():
            return "debug"
        case _:
            return "info"


def _sentence(event: ev.Event) -> str:  # noqa: C901, PLR0911, PLR0912 - one line a kind
    match event:
        case ev.RunStarted():
            return f"run of {event.name} began"
        case ev.StageEntered():
            return f"stage {event.stage}"
        case ev.TargetsSelected():
            return f"{event.fault}: {len(event.selected)} of {event.matched} matches selected"
        case ev.PlanChosen():
            return f"{event.fault}: by {event.mechanism} on {event.target}"
        case ev.FaultStarted():
            return f"fault {event.fault} is on"
        case ev.FaultEnded():
            return f"fault {event.fault} is off"
        case ev.FaultAdjusted():
            return f"fault {event.fault} was adjusted"
        case ev.ActionDone():
            return event.description
        case ev.ActionUndone():
            return event.description if event.verified else f"{event.description}: not verified: {event.detail}"
        case ev.TargetLost() | ev.TargetFollowed():
            return f"{event.fault}: a target ended" + (
                " and was found again" if event.kind == "target-followed" else ""
            )
        case ev.SteadyStateChecked():
            return f"the steady state {event.when} the fault {'holds' if event.holds else 'does not hold'}"
        case ev.AbortTriggered():
            return f"aborted: {event.reason}"
        case ev.Interrupted():
            return f"interrupted by {event.signal}"
        case ev.LoadBehind():
            return f"the load is behind: {event.reason}"
        case ev.Problem():
            return f"{event.where}: {event.message}"
        case ev.VerdictReached():
            return f"{event.verdict}: {event.reason}"
        case ev.RunFinished():
            return f"run finished with exit status {event.exit_status}"
        case _:
            return event.was if isinstance(event, ev.UnknownEvent) else event.kind.replace("-", " ")
