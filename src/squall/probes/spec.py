"""What can be measured, as a document says it: pure models, no I/O."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from squall.faults.frozen import FrozenDict, FrozenMapping, FrozenModel, JsonBody, Rows
from squall.units import Duration, Rate, Within

__all__ = [
    "HttpRequest",
    "Load",
    "Probe",
    "ProcessQuery",
    "PrometheusQuery",
    "ResilienceQuery",
    "RuntimeQuery",
    "Secret",
    "Step",
    "TcpAddress",
]


class Secret(FrozenModel):
    """A value that is never written in a document or a report: only where to find it."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The environment variable that holds it: letters, digits and `_`, no digit first."""
    file: str | None = None
    """The file that holds it; one line end at its end is dropped."""
    prefix: str = ""
    """Written before it, for example `Bearer `."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("say where the secret is: either `env` or `file`")
        return self


def _text_or_secret(value: object) -> str:
    return "Secret" if isinstance(value, (dict, Secret)) else "str"


HeaderValue = Annotated[Annotated[str, Tag("str")] | Annotated[Secret, Tag("Secret")], Discriminator(_text_or_secret)]
Headers = FrozenMapping[Annotated[str, Field(min_length=1, max_length=256)], HeaderValue]

Status = Annotated[str, Field(pattern=r"^[1-5](?:[0-9][0-9]|xx)$")]


class HttpRequest(FrozenModel):
    """One HTTP request and which answers count as success."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=8192)]
    """http:// or https://, with a host."""
    method: Annotated[str, Field(pattern=r"^[A-Z]+$")] = "GET"
    """In capitals."""
    headers: Headers = FrozenDict()
    """Sent with it; a secret is `{env: NAME}` or `{file: PATH}`."""
    body: JsonBody = None
    """A mapping or list is sent as JSON, text as it is."""
    success: Rows[Status] = ("2xx", "3xx")
    """Statuses that count as success; all others are errors."""
    timeout: Annotated[Duration, Within("1ms", "10m")] = Duration.parse("10s")
    """After this the request is given up and counts as an error."""


class ProcessQuery(FrozenModel):
    """A process to look at: alive, restarts, rss (bytes), fds, threads, cpu (cores). Success is being alive."""

    pid: Annotated[int, Field(ge=1)] | None = None
    command: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    unit: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(value is not None for value in (self.pid, self.command, self.port, self.unit)) != 1:
            raise ValueError("give exactly one of `pid`, `command`, `port`, `unit`")
        return self


class RuntimeQuery(ProcessQuery):
    """The language runtime of one process, seen from outside. Success is being watched (of a Go program, also its profile).

    Go: gc (collections since the last sample), parked (goroutines that went on after a long wait), idlePs, lateTimers,
    heap (bytes in use, from its profile). Python and others with an epoll loop: loopLagMs (the longest turn), gc, gcPauseMs.
    """

    parked: Annotated[Duration, Within("1us", "1h")] = Duration.parse("100ms")
    """A goroutine's wait that is longer counts; idle network polling and the runtime's own goroutines never do."""
    late: Annotated[Duration, Within("1us", "1h")] = Duration.parse("10ms")
    """A timer of a Go program that fires later than this counts."""
    pprof: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=8192)] | None = None
    """Where a Go service serves its heap profile, http://127.0.0.1:6060/debug/pprof/heap."""


class PrometheusQuery(FrozenModel):
    """A PromQL query; success is an answer with exactly one number, published as the value `value`."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=8000)]
    """The server's base address, for example http://127.0.0.1:9090."""
    query: Annotated[str, Field(min_length=1, max_length=16384)]
    """Must yield a scalar or a vector of one element."""
    headers: Headers = FrozenDict()


class ResilienceQuery(FrozenModel):
    """The patterns that guard one dependency of a service, from its `/metrics`. Success is an answer that could be read.

    Values: open (0 closed, 0.5 half-open, 1 open), opened (times so far), retryCalls, retryAttempts, primary, fellBack,
    unanswered (of the fallback's calls); a pattern that the service has not got has no value.
    """

    metrics: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=8000)]
    """Where the service serves its metrics, as Prometheus text: http://127.0.0.1:8082/metrics."""
    dependency: Annotated[str, Field(min_length=1, max_length=63)]
    """The dependency's name in that service."""


TcpAddress = Annotated[str, Field(pattern=r"^(?:\[[0-9A-Fa-f:.%]+\]|[^:\s\[\]]+):[0-9]{1,5}$")]


class Probe(FrozenModel):
    """One thing that is sampled: exactly one of http, tcp, process, command, prometheus, runtime, resilience."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    """Its series in the run: at most 63 letters, digits, `_`, `.` and `-`, a letter or digit first."""
    http: HttpRequest | None = None
    tcp: TcpAddress | None = None
    """`host:port` or `[v6]:port`; success is a connection that opens."""
    process: ProcessQuery | None = None
    command: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """Shell words (no shell); exit status 0 is success, the duration is the latency."""
    prometheus: PrometheusQuery | None = None
    runtime: RuntimeQuery | None = None
    resilience: ResilienceQuery | None = None
    every: Annotated[Duration, Within("10ms", "1h")] = Duration.parse("1s")
    """The period; the next sample is not started while one is running, and a missed one is counted."""
    timeout: Annotated[Duration, Within("1ms", "10m")] = Duration.parse("5s")
    """A sample that takes longer has failed."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = ("http", "tcp", "process", "command", "prometheus", "runtime", "resilience")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(kinds)}" + (f", not {' and '.join(given)}" if given else "")
            )
        return self

    @property
    def kind(self) -> Literal["http", "tcp", "process", "command", "prometheus", "runtime", "resilience"]:
        """Which one it is."""
        for kind in ("http", "tcp", "process", "command", "runtime", "resilience"):
            if getattr(self, kind) is not None:
                return kind
        return "prometheus"


class Step(FrozenModel):
    """A part of a load profile: from the rate before it to `rate`, over `ramp`, then held for `hold`."""

    rate: Annotated[Rate, Within("0.01/s", "100000/s")]
    ramp: Duration = Duration(0)
    hold: Duration = Duration(0)


class Load(FrozenModel):
    """Open-loop traffic: requests are sent at their intended times whether or not earlier ones were answered."""

    http: HttpRequest
    rate: Annotated[Rate, Within("0.01/s", "100000/s")] | None = None
    """A fixed rate for the whole run."""
    profile: Rows[Step] = ()
    """Steps and ramps; the last rate is held to the end of the run."""
    connections: Annotated[int, Field(ge=1, le=10000)] = 1000
    """At most so many requests in flight; one more is counted as unsent, and the load as behind."""

    @field_validator("profile")
    @classmethod
    def _bounded(cls, value: tuple[Step, ...]) -> tuple[Step, ...]:
        if len(value) > 100:  # noqa: PLR2004 - said in the message
            raise ValueError("a profile has at most 100 steps")
        return value

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.rate is None) == (not self.profile):
            raise ValueError("give either `rate` or `profile`")
        return self
