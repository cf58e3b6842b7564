"""An experiment for one fault, as `squall inject` runs it: no document, the same defaults and the same checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from squall.errors import InputError
from squall.experiment.model import Abort, Expectation, Experiment, FaultStep, Recovery, Targets, Tolerate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.faults import Fault
    from squall.probes.spec import Load
    from squall.units import Duration

__all__ = ["adhoc"]


def adhoc(
    fault: Fault,
    targets: Targets,
    duration: Duration,
    *,
    name: str | None = None,
    baseline: Duration | None = None,
    expectations: Sequence[Expectation] = (),
    load: Load | None = None,
    tolerate: Tolerate | None = None,
    abort: Abort | None = None,
    recovery: Recovery | None = None,
    seed: int = 0,
) -> Experiment:
    """The experiment of this one fault on these targets; named after the fault where `name` is not given.

    What is None has the document's default. Without expectations and load, the engine derives a probe from the targets
    that it selects. Raises InputError for what does not fit together.
    """
    given: dict[str, Any] = {
        "baseline": baseline, "load": load, "tolerate": tolerate, "abort": abort, "recovery": recovery,
    }  # fmt: skip
    try:
        return Experiment(
            name=name or fault.type.replace("_", "-"),
            targets=targets,
            duration=duration,
            faults=(FaultStep(fault=fault, targets=targets, duration=duration),),
            steady_state=tuple(expectations),
            seed=seed,
            **{key: value for key, value in given.items() if value is not None},
        )
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise InputError("\n".join(_said(details["loc"], details["msg"]) for details in found)) from None


def _said(location: tuple[str | int, ...], message: str) -> str:
    """The problem with the nearest name that a user of options knows."""
    words = [
        str(step)
        for step in location
        if isinstance(step, str) and step not in ("faults", "fault", "steadyState", "type")
    ]
    what = message.removeprefix("Value error, ")
    return f"{'.'.join(words)}: {what}" if words else what
