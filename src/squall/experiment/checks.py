"""What must be true of an experiment as a whole, beyond each field: every problem with the location of its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.units import Duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from squall.experiment.model import Abort, Expectation, FaultStep, Tolerate
    from squall.probes.spec import Load

__all__ = ["PULSES_MAX", "Parts", "except_for_most", "problems_of"]

PULSES_MAX = 10_000
"""A fault goes on and off at most so often in a run: each time is journalled."""

_LOAD_SERIES = "load"

Located = tuple[tuple[str | int, ...], str]
"""Where, from the experiment, and what is wrong there."""


@dataclass(frozen=True)
class Parts:
    """As much of an experiment as could be read: list items by their index, None for what is wrong in itself."""

    duration: Duration | None
    baseline: Duration | None
    steps: Mapping[int, FaultStep]
    expectations: Mapping[int, Expectation]
    load: Load | None
    tolerate: Tolerate | None
    abort: Abort | None


def except_for_most(steps: Iterable[FaultStep]) -> Duration:
    """Half of the time in which at least one fault lasts: more could never fail a verdict."""
    total, reached = 0, 0
    for begins, ends in sorted((int(step.after), step.after + step.duration) for step in steps):
        total += max(0, ends - max(begins, reached))
        reached = max(reached, ends)
    return Duration(total // 2)


def problems_of(parts: Parts) -> list[Located]:
    """Everything that does not fit together, each with the location of the key that a person would change."""
    problems: list[Located] = []
    for number, step in parts.steps.items():
        problems += [(("faults", number, *loc), what) for loc, what in _step(step, parts.duration)]
    problems += _routes(parts.steps)
    problems += _names(parts.expectations)
    problems += _baseline(parts)
    problems += _thresholds(parts.tolerate, parts.abort)
    return problems


def _step(step: FaultStep, whole: Duration | None) -> Iterator[Located]:
    if step.targets.kind not in step.fault.targets:
        can = " or a ".join(step.fault.targets)
        yield ("type",), f"{step.fault.type} happens to a {can}, but its targets select a {step.targets.kind}"
    if whole is not None and step.after >= whole:
        yield ("after",), f"{step.after} is not before the end of the experiment's duration ({whole})"
    elif whole is not None and step.after + step.duration > whole:
        ends = Duration(step.after + step.duration)
        yield ("duration",), f"it ends {ends} after the start, beyond the experiment's duration ({whole})"
    if step.pulse is not None:
        yield from _pulse(step, Duration(step.pulse.on + step.pulse.off))


def _pulse(step: FaultStep, period: Duration) -> Iterator[Located]:
    if period >= step.duration:
        yield ("pulse",), f"on and off take {period}, so the fault's {step.duration} would hold no second pulse"
    elif step.duration // period > PULSES_MAX:
        yield (
            ("pulse",),
            f"{step.duration} would hold {step.duration // period} pulses; at most {PULSES_MAX} are allowed",
        )
    if not step.fault.reversible and not step.targets.follow:
        yield ("pulse",), f"{step.fault.type} ends its target, so a second pulse needs `follow: true` in the targets"


def _routes(steps: Mapping[int, FaultStep]) -> Iterator[Located]:
    seen: dict[str, str] = {}
    for number, step in steps.items():
        route = step.targets.route
        if route is None:
            continue
        upstream = seen.setdefault(route.listen, route.upstream)
        if upstream != route.upstream:
            what = f"a route at {route.listen} already leads to {upstream}, it cannot also lead to {route.upstream}"
            yield ("faults", number, "targets", "route"), what


def _names(expectations: Mapping[int, Expectation]) -> Iterator[Located]:
    """Series are told apart by name; a gauge's is `<probe>.<value>`."""
    seen: set[str] = set()
    for number, expectation in expectations.items():
        name, loc = expectation.name, ("steadyState", number, "name")
        if name in seen:
            yield loc, f"another probe is called {name!r} already: names are unique"
        elif name == _LOAD_SERIES:
            yield loc, "the name 'load' is the load's own"
        elif name.rpartition(".")[0] in seen:
            yield loc, f"{name!r} looks like a value of the probe {name.rpartition('.')[0]!r}: use another name"
        seen.add(name)


_SAMPLES_SEEN = 3
"""Fewer samples say nothing of the steady state (`analysis.steady`)."""


def _baseline(parts: Parts) -> Iterator[Located]:
    if parts.baseline is None:
        return
    for expectation in parts.expectations.values():
        sampled_by_load = parts.load is not None and expectation.http == parts.load.http
        if not sampled_by_load and parts.baseline < expectation.every * (_SAMPLES_SEEN - 1):
            often = f"{expectation.name!r} is sampled every {expectation.every}, and {_SAMPLES_SEEN} samples are needed"
            yield ("baseline",), f"{parts.baseline} is too short to see the steady state: {often}"
            return
    if parts.load is not None and parts.baseline == 0:
        yield ("baseline",), "with a load it must be longer than 0s: what is normal is measured in it"


def _thresholds(tolerate: Tolerate | None, abort: Abort | None) -> Iterator[Located]:
    if tolerate is None or abort is None:
        return
    stands = "the ceiling stands above it"
    if abort.p95 < tolerate.p95:
        yield ("abort", "p95"), f"{abort.p95} is below what `tolerate` accepts ({tolerate.p95}): {stands}"
    if abort.error_rate < tolerate.error_rate:
        what = f"{abort.error_rate} is below what `tolerate` accepts ({tolerate.error_rate}): {stands}"
        yield ("abort", "errorRate"), what
