"""Which series of samples each expectation of an experiment is measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.experiment.model import Experiment

__all__ = ["LOAD_SERIES", "load_is_shared", "series_of"]

LOAD_SERIES = "load"
"""The series of the load's requests."""


def series_of(experiment: Experiment) -> dict[str, str]:
    """Each expectation's name and the series it is measured by, in the document's order.

    An expectation whose request is the load's own needs no probe beside it: the load's requests are its samples.
    A gauge of an expectation is a further series, `<name>.<value>`.
    """
    shared = experiment.load.http if experiment.load else None
    return {e.name: LOAD_SERIES if shared is not None and e.http == shared else e.name for e in experiment.steady_state}


def load_is_shared(experiment: Experiment) -> bool:
    """Whether some expectation is measured by the load; if none is, the load is judged by the defaults."""
    return LOAD_SERIES in series_of(experiment).values()
