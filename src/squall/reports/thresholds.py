"""The limits that a run was judged by, as lines for its charts: the analysis's own measures of the run's document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from squall.analysis.measures import ceiling_measures, measures_of
from squall.errors import InputError
from squall.experiment.document import experiment_of_run
from squall.experiment.patterns import probes_of
from squall.reports.record import Threshold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.analysis.measures import Measure
    from squall.experiment.model import Experiment

__all__ = ["looks_of", "read_thresholds", "understood"]

Role = Literal["steady", "tolerate", "abort"]


def understood(document: dict[str, Any]) -> Experiment | None:
    """The experiment of a run's document; None where this Squall cannot read it (it is a newer one's, or not there)."""
    try:
        return experiment_of_run(document) if document else None
    except (InputError, ValueError, TypeError, RecursionError):
        return None


def read_thresholds(experiment: Experiment | None) -> tuple[Threshold, ...]:
    """Every p95 and error rate that is limited, with the series that it is judged by."""
    if experiment is None:
        return ()
    by_role: tuple[tuple[Role, tuple[Measure, ...]], ...] = (
        ("steady", measures_of(experiment)),
        ("tolerate", measures_of(experiment, tolerated=True)),
        ("abort", ceiling_measures(experiment)),
    )
    found = [threshold for role, measures in by_role for threshold in _limits(role, measures)]
    return tuple(dict.fromkeys(found))


def _limits(role: Role, measures: tuple[Measure, ...]) -> Iterator[Threshold]:
    for measure in measures:
        if measure.kind == "latency":
            yield Threshold(role, "p95", float(measure.limit), measure.series)
        elif measure.kind == "errors":
            yield Threshold(role, "error-rate", measure.allowed, measure.series)


def looks_of(experiment: Experiment | None) -> frozenset[str]:
    """The series of probes that look at something and send no request: they have no latency to show."""
    if experiment is None:
        return frozenset()
    return frozenset(e.name for e in experiment.steady_state if e.kind in ("process", "prometheus")) | frozenset(
        probe.name for probe in probes_of(experiment.expect).values()
    )
