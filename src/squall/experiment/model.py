"""The experiment as validated: what a document says, with every default filled in. Pure: no I/O.

General layout: selectors and `Targets` (where), `Expectation`, `Tolerate`, `Abort`, `Recovery` (what must hold),
`Pulse` and `FaultStep` (what goes wrong, when), `Experiment`. What concerns several fields of an experiment at once is
in `checks`; every problem is raised with the location of the key that a person would change.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from squall.experiment.checks import Parts, except_for_most, problems_of
from squall.experiment.patterns import PatternExpectation  # noqa: TC001 - pydantic evaluates it
from squall.faults import FAULTS, Fault, fault_types
from squall.faults.base import TargetKind
from squall.faults.frozen import FrozenDict, FrozenMapping, FrozenModel, Rows, said
from squall.probes.spec import Load, Probe, ProcessQuery
from squall.units import Duration, Ratio, Within

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "API_VERSION",
    "FAULTS_MAX",
    "SELECTORS",
    "STEP_KEYS",
    "Abort",
    "Bounds",
    "Expectation",
    "Experiment",
    "FaultStep",
    "ProcessSelector",
    "Pulse",
    "Recovery",
    "RouteSelector",
    "Targets",
    "Tolerate",
    "completed",
]

API_VERSION = "squall.dev/v1alpha1"
STEP_KEYS = ("targets", "after", "duration", "pulse")
"""The keys of a fault step that are not the fault's own."""

SELECTORS: tuple[TargetKind, ...] = get_args(TargetKind)
"""The keys of `targets` of which exactly one is given."""

FAULTS_MAX = 64

_PORT_MAX = 65535


class ProcessSelector(ProcessQuery):
    """Processes on this machine, selected in exactly one way."""


def _with_a_port(text: str) -> str:
    if not 1 <= int(text.rpartition(":")[2]) <= _PORT_MAX:
        raise ValueError(f"{text!r} has no usable port: 1 to {_PORT_MAX} is allowed")
    return text


Address = Annotated[
    str, Field(pattern=r"^(?:\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):[0-9]{1,5}$", max_length=300), AfterValidator(_with_a_port)
]


class RouteSelector(FrozenModel):
    """A way into a service that leads through Squall's proxy: it listens there for the length of the run."""

    listen: Address
    """Where clients connect, `host:port`."""
    upstream: Address
    """Where the service listens, `host:port`."""

    @model_validator(mode="after")
    def _not_a_circle(self) -> Self:
        if self.listen == self.upstream:
            raise ValueError(f"`listen` and `upstream` are both {self.listen}: the proxy stands between two addresses")
        return self


def _count_or_share(value: object) -> int | Ratio:
    if isinstance(value, Ratio):
        return value
    if isinstance(value, str) and value.endswith("%"):
        return Ratio.parse(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f"{value!r} is neither a count of at least 1, such as 2, nor a percentage, such as 50%")


CountOrShare = Annotated[
    Any,
    PlainValidator(_count_or_share),
    PlainSerializer(lambda value: str(value) if isinstance(value, Ratio) else value),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "%$"}]}),
]


class Targets(FrozenModel):
    """What is hit: one selector, how many of its matches, and whether a restarted one is followed. No selector, no target."""

    process: ProcessSelector | None = None
    """Processes on this machine."""
    cgroup: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A cgroup's path, absolute or below the cgroup mount; never the root."""
    container: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """A running container's name, id, or the beginning of its id; of a pod's container NAME, POD/NAME or NAMESPACE/POD/NAME."""
    netns: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A network namespace's name (`ip netns`, Docker's) or path, such as /proc/PID/ns/net; never the machine's own."""
    route: RouteSelector | None = None
    """A way into a service through the proxy."""
    middleware: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None = None
    """A chaos middleware inside running services, by its name: 1 to 64 of a-z 0-9 . _ -, not beginning with a sign."""
    mode: Literal["one", "all", "fixed", "fixed-percent", "random-max-percent"] | None = None
    """How many of the matches; needed where there are several."""
    value: CountOrShare | None = None
    """For mode fixed a count, for the percent modes a percentage."""
    most: Annotated[int, Field(ge=1)] | None = None
    """Refuse when more than so many would be hit."""
    follow: bool = False
    """A target that restarts during the run is found again by the same selector, and the fault is put on it."""

    @model_validator(mode="after")
    def _one_selector(self) -> Self:
        given = [kind for kind in SELECTORS if getattr(self, kind) is not None]
        if len(given) != 1:
            but = f", not {' and '.join(given)}" if given else ": with no selector nothing is selected"
            raise ValueError(f"give exactly one of {', '.join(f'`{kind}`' for kind in SELECTORS)}{but}")
        if self.follow and self.process is None and self.container is None:
            raise ValueError(
                "`follow` goes with `process` and `container`: what else there is stays when what is in it restarts"
            )
        if self.follow and self.process is not None and self.process.pid is not None:
            raise ValueError("a pid cannot be followed: select by `command`, `port` or `unit`")
        return self

    @model_validator(mode="after")
    def _a_value_where_one_is_needed(self) -> Self:
        shares = self.mode in ("fixed-percent", "random-max-percent")
        if self.mode != "fixed" and not shares:
            if self.value is not None:
                raise ValueError("`value` goes with mode fixed, fixed-percent or random-max-percent")
        elif self.value is None or isinstance(self.value, Ratio) != shares:
            raise ValueError(
                f"mode {self.mode} needs a `value`, " + ("such as 50%" if shares else "a count of at least 1")
            )
        return self

    @property
    def kind(self) -> TargetKind:
        """Which selector it is."""
        return next(kind for kind in SELECTORS if getattr(self, kind) is not None)


class Bounds(FrozenModel):
    """The range in which a value (rss, fds, a query's answer) must stay, both ends allowed."""

    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("give `least`, `most` or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"`least` ({self.least:g}) is above `most` ({self.most:g})")
        return self


_GAUGES = {
    "process": ("rss", "fds", "threads", "cpu", "restarts"), "prometheus": ("value",),
    "runtime": ("gc", "parked", "idlePs", "lateTimers", "heap", "loopLagMs", "gcPauseMs"),
    "resilience": ("open", "opened", "retryCalls", "retryAttempts", "primary", "fellBack", "unanswered"),
}  # fmt: skip
_TIMED = ("http", "tcp", "command")


def _p95_by_kind(data: dict[str, Any]) -> Duration | None:
    return Duration.parse("300ms") if any(data.get(kind) is not None for kind in _TIMED) else None


class Expectation(Probe):
    """A probe with what must hold of it in the steady state."""

    p95: Annotated[Duration, Within("1us", "1h")] | None = Field(default_factory=_p95_by_kind)
    """The 95th percentile of its latency; 300ms by default for http, tcp and command, which alone have one."""
    error_rate: Ratio = Ratio.parse("0.5%")
    """The share of its samples that may fail."""
    values: FrozenMapping[str, Bounds] = FrozenDict()
    """For gauges: process has `rss`, `fds`, `threads`, `cpu`, `restarts`; prometheus `value`; runtime `parked`, `gc`, ..."""

    @model_validator(mode="after")
    def _only_what_it_measures(self) -> Self:
        if self.p95 is not None and self.kind not in _TIMED:
            raise ValueError(f"`p95` goes with {', '.join(_TIMED)}: a {self.kind} probe has no latency to judge")
        gauges = _GAUGES.get(self.kind, ())
        for name in self.values:
            if name not in gauges:
                there = f"there are {', '.join(gauges)}" if gauges else "it has none"
                raise ValueError(f"a {self.kind} probe has no value {name!r}: {there}")
        return self


class Tolerate(FrozenModel):
    """What is acceptable while the fault is on; exceeding it fails the verdict."""

    p95: Annotated[Duration, Within("1us", "1h")] = Duration.parse("1200ms")
    """The 95th percentile of the latency."""
    error_rate: Ratio = Ratio.parse("2%")
    """The share of requests that may fail."""
    except_for: Duration = Duration.parse("1m")
    """The total time in which it may be exceeded; taken as half of the time that faults are on where that is less."""


class Abort(FrozenModel):
    """The ceiling that ends the fault at once: what the trailing `for` may not exceed, with at least `samples` samples in it."""

    p95: Annotated[Duration, Within("1us", "1h")] = Duration.parse("5s")
    """The 95th percentile of the latency."""
    error_rate: Ratio = Ratio.parse("50%")
    """The share of requests that may fail."""
    for_: Annotated[Duration, Within("1s", "10m"), Field(alias="for")] = Duration.parse("5s")
    """How far back is looked."""
    samples: Annotated[int, Field(ge=1, le=100_000)] = 20
    """With fewer, nothing is decided."""


class Recovery(FrozenModel):
    """How soon after the fault's end the steady state must hold again."""

    within: Annotated[Duration, Within("100ms", "1h")] = Duration.parse("30s")
    """From the end of the last fault."""


class Pulse(FrozenModel):
    """The fault goes on and off, beginning with on, within its duration."""

    on: Annotated[Duration, Within("10ms", "1h")]
    """How long it is on."""
    off: Annotated[Duration, Within("10ms", "1h")]
    """How long it is off before it comes again."""


class FaultStep(FrozenModel):
    """One fault of an experiment: the fault itself, where (else the experiment's targets) and when.

    In a document its keys stand beside the fault's own: `{type: tcp.latency, latency: 3s, after: 10s}`.
    """

    fault: SerializeAsAny[Fault]
    targets: Targets
    """What it happens to, where that is not the experiment's `targets`."""
    after: Duration = Duration(0)
    """How long after the injection's start it begins."""
    duration: Annotated[Duration, Within("1ms", "24h")]
    """How long it lasts, pulses and their gaps together; by default to the end of the experiment's duration."""
    pulse: Pulse | None = None
    """Go on and off instead of staying on."""

    @model_validator(mode="before")
    @classmethod
    def _gather_the_fault(cls, data: Any) -> Any:
        if not isinstance(data, dict) or isinstance(data.get("fault"), Fault):
            return data
        own = {key: value for key, value in data.items() if key in STEP_KEYS}
        return {**own, "fault": {key: value for key, value in data.items() if key not in STEP_KEYS}}

    @field_validator("fault", mode="before")
    @classmethod
    def _read_the_fault(cls, data: Any, info: ValidationInfo) -> Any:
        return _fault(data, info) if isinstance(data, dict) else data

    @model_serializer(mode="wrap")
    def _what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = said(self, handler(self))
        return {"type": self.fault.type, **data.pop("fault"), **data}


def _located(loc: tuple[str | int, ...], what: str) -> InitErrorDetails:
    return InitErrorDetails(type="value_error", loc=loc, input=None, ctx={"error": ValueError(what)})


def _fault(data: Mapping[str, Any], info: ValidationInfo) -> Fault:
    """The fault in a step's keys; a ValidationError is placed by pydantic below the step."""
    tag = data.get("type")
    model = FAULTS.get(tag) if isinstance(tag, str) else None
    if model is None:
        wrong = InitErrorDetails(type="missing", loc=("type",), input=None)
        if "type" in data:
            expected = {"expected": ", ".join(f"'{name}'" for name in fault_types())}
            wrong = InitErrorDetails(type="literal_error", loc=("type",), input=tag, ctx=expected)
        raise ValidationError.from_exception_data("fault", [wrong])
    parameters = {key: value for key, value in data.items() if key != "type"}
    from_document = bool((info.context or {}).get("document"))
    return model.model_validate(parameters, by_alias=True, by_name=not from_document)


_NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError(f"{text[:63]!r} is not a name: lower-case letters, digits, `.` and `-`, at most 63")
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]


class Experiment(FrozenModel):
    """One experiment, complete: what a run needs and nothing else."""

    name: Name
    """Lower-case letters, digits, `.` and `-`; it names the run's folder and the report."""
    description: Annotated[str, Field(max_length=10_000)] = ""
    """What should stay true, in a sentence for whoever reads the report."""
    targets: Targets | None = None
    """What is hit by every fault that names no targets of its own."""
    duration: Annotated[Duration, Within("100ms", "24h")]
    """From the injection's start to the end of the last fault."""
    baseline: Annotated[Duration, Within("0s", "1h")] = Duration.parse("10s")
    """Watched before anything is injected."""
    faults: Rows[FaultStep]
    """What goes wrong."""
    steady_state: Annotated[Rows[Expectation], Field(max_length=64)] = ()
    """What must hold before, else nothing is injected, and again after.

    Where neither this nor a load is given, a probe is derived from the targets.
    """
    expect: Annotated[Rows[PatternExpectation], Field(max_length=64)] = ()
    """What the patterns of a service are expected to do about the fault: its breakers, retries, fallbacks."""
    load: Load | None = None
    """Traffic for the length of the run."""
    tolerate: Tolerate = Tolerate()
    """What is acceptable while the fault is on."""
    abort: Abort = Abort()
    """The ceiling that ends the fault at once."""
    recovery: Recovery = Recovery()
    """How soon it must be well again."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the selection of targets and every draw of a fault."""

    @field_validator("faults", mode="before")
    @classmethod
    def _say_the_defaults(cls, steps: Any, info: ValidationInfo) -> Any:
        """Give each step the experiment's targets and the rest of its duration, where it has none of its own."""
        if not isinstance(steps, (list, tuple)):
            return steps
        if not 1 <= len(steps) <= FAULTS_MAX:
            raise ValueError(f"there are {len(steps)} faults; 1 to {FAULTS_MAX} are allowed")
        return tuple(completed(step, info.data) if isinstance(step, dict) else step for step in steps)

    @field_validator("tolerate", mode="after")
    @classmethod
    def _at_most_half(cls, tolerate: Tolerate, info: ValidationInfo) -> Tolerate:
        most = except_for_most(info.data.get("faults", ()))
        return tolerate if tolerate.except_for <= most else tolerate.model_copy(update={"except_for": most})

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get("ran"):  # it was checked before it ran, and the engine added what it derived
            return self
        parts = Parts(
            duration=self.duration,
            baseline=self.baseline,
            steps=dict(enumerate(self.faults)),
            expectations=dict(enumerate(self.steady_state)),
            load=self.load,
            tolerate=self.tolerate,
            abort=self.abort,
        )
        if found := problems_of(parts):
            raise ValidationError.from_exception_data("experiment", [_located(loc, what) for loc, what in found])
        return self

    @model_serializer(mode="wrap")
    def _what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = said(self, handler(self))
        for step, row in zip(self.faults, data["faults"], strict=True):
            if step.targets == self.targets:
                row.pop("targets")
        return data


def completed(step: dict[str, Any], experiment: Mapping[str, Any]) -> dict[str, Any]:
    """A step as written, with the defaults that the experiment's valid fields give it.

    What cannot be told because the experiment's own field is wrong gets a value that passes: the field is reported.
    """
    full = dict(step)
    if "targets" not in full and experiment.get("targets", _UNREAD) is not None:
        full["targets"] = experiment.get("targets", _UNREAD)
    if "duration" not in full:
        full["duration"] = _rest(experiment.get("duration", Duration.parse("24h")), full.get("after", Duration(0)))
    return full


def _rest(duration: Duration, after: object) -> Duration:
    try:
        begins = (
            after if isinstance(after, Duration) else Duration.parse(after) if isinstance(after, str) else Duration(0)
        )
    except ValueError:  # said where `after` itself is validated
        begins = Duration(0)
    return Duration(max(duration - begins, 1_000_000))


_UNREAD = Targets(route=RouteSelector(listen="unread:1", upstream="unread:2"))
"""Stands in for targets that have a problem of their own, which is reported once and not for every fault."""
