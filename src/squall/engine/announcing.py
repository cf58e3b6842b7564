"""What a run says of itself before it begins: who, where, which targets, by which mechanisms and why not by others."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from typing import TYPE_CHECKING

import squall
from squall.events import Event, PlanChosen, RunStarted, TargetsSelected
from squall.experiment.document import experiment_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from squall.engine.planning import PlannedFault
    from squall.experiment.model import Experiment
    from squall.injectors import Choice
    from squall.probes.traceparent import RunTrace
    from squall.targets import Target

__all__ = ["planned_events", "run_started"]


def run_started(experiment: Experiment, trace: RunTrace | None = None, trace_url: str = "") -> RunStarted:
    """The first event of a run."""
    host = {
        "hostname": platform.node(), "kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(),
        "user": os.geteuid(),
    }  # fmt: skip
    document = experiment_document(experiment)
    started = RunStarted(experiment.name, experiment.seed, squall.__version__, host, document)
    if trace is None:
        return started
    url = trace_url.replace("{trace_id}", trace.trace_id)
    return replace(started, trace=trace.traceparent, trace_parent=trace.parent_id, trace_url=url)


def planned_events(planned: Iterable[PlannedFault]) -> Iterator[Event]:
    """For each fault what was selected, and for each target the plan."""
    for fault in planned:
        yield TargetsSelected(fault.id, fault.matched, [target.to_json() for target in fault.targets])
        for target, choice in zip(fault.targets, fault.choices, strict=True):
            yield _plan_chosen(fault, target, choice)


def _plan_chosen(fault: PlannedFault, target: Target, choice: Choice) -> PlanChosen:
    plan = choice.plan
    steps = (*plan.setup, *plan.actions)
    return PlanChosen(
        fault=fault.id,
        type=fault.step.fault.type,
        target=target.label,
        mechanism=plan.mechanism,
        recoverability=plan.recoverability,
        accuracy=plan.accuracy,
        not_covered=list(plan.not_covered),
        actions=[action.describe() for action in steps],
        undos=[action.describe_undo() for action in steps],
        refused=[{"mechanism": one.mechanism, "reason": one.reason} for one in choice.refused],
        parameters=fault.step.fault.parameters(),
    )
