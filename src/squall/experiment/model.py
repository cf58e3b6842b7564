"""The experiment as validated: what a document says, with every default filled in. Pure: no I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from squall.faults import FAULTS, Fault
from squall.probes.spec import Load, Probe, ProcessQuery, Spec
from squall.units import Duration, Ratio, Within

__all__ = [
    "Abort",
    "Bounds",
    "Experiment",
    "Expectation",
    "FaultStep",
    "ProcessSelector",
    "Pulse",
    "Recovery",
    "RouteSelector",
    "Targets",
    "Tolerate",
]

API_VERSION = "squall.dev/v1alpha1"


class ProcessSelector(ProcessQuery):
    """Processes on this machine: by pid, by command (the exact base name of argv[0], or of an interpreter's script or module), by listening port, by systemd unit."""


class RouteSelector(Spec):
    """A way into a service that leads through Squall's proxy: it listens there for the length of the run."""

    listen: Annotated[str, Field(pattern=r"^(?:\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):\d{1,5}$")]
    """Where clients connect, `host:port`."""
    upstream: Annotated[str, Field(pattern=r"^(?:\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):\d{1,5}$")]
    """Where the service listens."""


class Targets(Spec):
    """What is hit: one selector, how many of its matches, and whether a restarted one is followed. No selector, no target."""

    process: ProcessSelector | None = None
    cgroup: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A cgroup's path, absolute or below the cgroup mount; never the root."""
    route: RouteSelector | None = None
    mode: Literal["one", "all", "fixed", "fixed-percent", "random-max-percent"] | None = None
    """How many of the matches; needed where there are several."""
    value: int | Ratio | None = None
    """For fixed a count, for the percent modes a percentage."""
    most: Annotated[int, Field(ge=1)] | None = None
    """Refuse when more than so many would be hit."""
    follow: bool = False
    """A target that restarts during the run is found again by the same selector, and the fault is put on it."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [kind for kind in ("process", "cgroup", "route") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of process, cgroup, route" + (f", not {' and '.join(given)}" if given else ""))
        counted = self.mode in ("fixed", "fixed-percent", "random-max-percent")
        if counted and self.value is None:
            raise ValueError(f"mode {self.mode} needs a `value`")
        if not counted and self.value is not None:
            raise ValueError("`value` goes with mode fixed, fixed-percent or random-max-percent")
        if self.mode == "fixed" and (not isinstance(self.value, int) or isinstance(self.value, Ratio) or self.value < 1):
            raise ValueError("mode fixed needs a `value` that is a count of at least 1")
        if self.mode in ("fixed-percent", "random-max-percent") and not isinstance(self.value, Ratio):
            raise ValueError(f"mode {self.mode} needs a `value` such as 50%")
        if self.follow and self.process is not None and self.process.pid is not None:
            raise ValueError("a pid cannot be followed: select by command, port or unit")
        return self

    @property
    def kind(self) -> Literal["process", "cgroup", "route"]:
        """Which selector it is."""
        if self.process is not None:
            return "process"
        return "cgroup" if self.cgroup is not None else "route"


class Bounds(Spec):
    """The range in which a value (rss, fds, a query's answer) must stay."""

    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("give `least`, `most` or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"`least` ({self.least}) is above `most` ({self.most})")
        return self


class Expectation(Probe):
    """A probe with what must hold of it in the steady state. Defaults: p95 300 ms (http, tcp, command), errors 0.5 %."""

    p95: Annotated[Duration, Within("1us", "1h")] | None = None
    error_rate: Ratio | None = None
    values: dict[str, Bounds] = {}
    """For gauges: process (`rss`, `fds`, `threads`, `cpu`, `restarts`), prometheus (`value`)."""


class Tolerate(Spec):
    """What is acceptable while the fault is on; exceeding it fails the verdict."""

    p95: Annotated[Duration, Within("1us", "1h")] = Duration.parse("1200ms")
    error_rate: Ratio = Ratio.parse("2%")
    except_for: Duration = Duration.parse("1m")
    """The total time it may be exceeded; never more than half of the fault's duration."""


class Abort(Spec):
    """The ceiling that ends the fault at once; over the trailing `for`, with at least `samples` samples."""

    p95: Annotated[Duration, Within("1us", "1h")] = Duration.parse("5s")
    error_rate: Ratio = Ratio.parse("50%")
    for_: Annotated[Duration, Within("1s", "10m"), Field(alias="for")] = Duration.parse("5s")
    samples: Annotated[int, Field(ge=1, le=100_000)] = 20


class Recovery(Spec):
    """How soon after the fault's end the steady state must hold again."""

    within: Annotated[Duration, Within("100ms", "1h")] = Duration.parse("30s")


class Pulse(Spec):
    """The fault goes on and off within its duration."""

    on: Annotated[Duration, Within("10ms", "1h")]
    off: Annotated[Duration, Within("10ms", "1h")]


class FaultStep(Spec):
    """One fault of an experiment: the fault itself, where (else the experiment's targets) and when.

    In a document its keys stand beside the fault's own: `{type: tcp.latency, latency: 3s, after: 10s}`.
    """

    fault: SerializeAsAny[Fault]
    targets: Targets
    after: Duration = Duration(0)
    """How long after the injection's start it begins."""
    duration: Annotated[Duration, Within("1ms", "24h")]
    """How long it is on; by default to the end of the experiment's duration."""
    pulse: Pulse | None = None

    @model_validator(mode="before")
    @classmethod
    def _gather_the_fault(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "type" not in data:
            return data
        model = FAULTS.get(data["type"])
        if model is None:
            return data
        own = {key: value for key, value in data.items() if key in ("targets", "after", "duration", "pulse")}
        return {**own, "fault": model.model_validate({k: v for k, v in data.items() if k not in own and k != "type"})}


class Experiment(Spec):
    """One experiment, complete: what a run needs and nothing else."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    description: str = ""
    steady_state: tuple[Expectation, ...] = ()
    tolerate: Tolerate = Tolerate()
    abort: Abort = Abort()
    load: Load | None = None
    faults: Annotated[tuple[FaultStep, ...], Field(min_length=1, max_length=64)]
    duration: Annotated[Duration, Within("100ms", "24h")]
    """From the injection's start to the end of the last fault."""
    baseline: Annotated[Duration, Within("0s", "1h")] = Duration.parse("10s")
    """Watched before anything is injected."""
    recovery: Recovery = Recovery()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


