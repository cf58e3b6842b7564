"""What the requests of a run carry of its trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.experiment.series import LOAD_SERIES

if TYPE_CHECKING:
    from squall.experiment.model import Experiment
    from squall.probes.traceparent import Marks, RunTrace

__all__ = ["marks_of"]


def marks_of(experiment: Experiment, trace: RunTrace | None) -> dict[str, Marks]:
    """By series of requests; none where the run is not traced."""
    if trace is None:
        return {}
    seconds = experiment.baseline.seconds + experiment.duration.seconds + experiment.recovery.within.seconds
    rates = {one.name: 1 / one.every.seconds for one in experiment.steady_state if one.http is not None}
    load = experiment.load
    if load is not None:
        rates[LOAD_SERIES] = max(float(rate) for rate in (load.rate, *(step.rate for step in load.profile)) if rate)
    return {name: trace.marks(name, rate, seconds) for name, rate in rates.items()}
