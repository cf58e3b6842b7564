"""What is expected of the patterns that let a service ride a fault out: its breakers, retries and fallbacks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from squall.faults.frozen import FrozenModel
from squall.probes.spec import Probe, ResilienceQuery
from squall.units import Duration, Ratio, Within

__all__ = ["BreakerExpected", "FallbacksExpected", "PatternExpectation", "RetriesExpected", "Soon", "probes_of"]

_AMPLIFICATION_MOST = 1000.0


def _at_most(value: object) -> float:
    number = value[2:].strip() if isinstance(value, str) and value.startswith("<=") else value
    try:
        bound = float(number) if isinstance(number, (str, int, float)) and not isinstance(number, bool) else -1.0
    except ValueError:
        bound = -1.0
    if not 1.0 <= bound <= _AMPLIFICATION_MOST:
        raise ValueError(f"{value!r} is no bound such as '<=1.2': 1 (no call is sent twice) to 1000 is allowed")
    return bound


def _at_least(value: object) -> Ratio:
    if isinstance(value, Ratio):
        return value
    if isinstance(value, str):
        return Ratio.parse(value.removeprefix(">=").strip())
    raise ValueError(f"{value!r} is no bound such as '>=90%'")


AtMost = Annotated[
    Any, PlainValidator(_at_most), PlainSerializer(lambda bound: f"<={bound:g}"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1}, {"type": "string", "pattern": r"^(<= ?)?[0-9.]+$"}]}),
]  # fmt: skip
AtLeast = Annotated[
    Any, PlainValidator(_at_least), PlainSerializer(lambda bound: f">={bound}"),
    WithJsonSchema({"type": "string", "pattern": r"^(>= ?)?[0-9.]+%$"}),
]  # fmt: skip


class Soon(FrozenModel):
    """A bound in time."""

    within: Annotated[Duration, Within("100ms", "1h")]
    """How soon."""


class _OfOneDependency(FrozenModel):
    metrics: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=8000)]
    """Where the service that has the pattern serves its metrics, http://127.0.0.1:8082/metrics."""
    dependency: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """The dependency's name in that service."""


class BreakerExpected(_OfOneDependency):
    """The breaker of this dependency opens because of the fault, and closes again after it."""

    opens: Soon | None = None
    """From the first fault's start."""
    closes: Soon | None = None
    """From the last fault's end; to stay so until the run's end."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.opens is None and self.closes is None:
            raise ValueError("give `opens`, `closes` or both")
        return self


class RetriesExpected(_OfOneDependency):
    """Retries do not multiply the load on a dependency that is in trouble."""

    amplification: AtMost
    """Sent in all for each call that came in, while faults are on: `<=1.2`."""


class FallbacksExpected(_OfOneDependency):
    """Calls that the dependency does not answer are answered from elsewhere."""

    rate: AtLeast
    """Of the calls that the dependency did not answer while faults were on, the share that a fallback did: `">=90%"`."""


class PatternExpectation(FrozenModel):
    """What one pattern is expected to do: exactly one of breaker, retries, fallbacks."""

    breaker: BreakerExpected | None = None
    retries: RetriesExpected | None = None
    fallbacks: FallbacksExpected | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.breaker, self.retries, self.fallbacks)) != 1:
            raise ValueError("give exactly one of `breaker`, `retries`, `fallbacks`")
        return self

    @property
    def kind(self) -> Literal["breaker", "retries", "fallbacks"]:
        """Which one it is."""
        return "breaker" if self.breaker is not None else "retries" if self.retries is not None else "fallbacks"

    @property
    def of(self) -> BreakerExpected | RetriesExpected | FallbacksExpected:
        """The one that is given."""
        given = self.breaker or self.retries or self.fallbacks
        assert given is not None  # noqa: S101 - validated
        return given


_EVERY = Duration.parse("500ms")


def probes_of(expected: tuple[PatternExpectation, ...]) -> dict[tuple[str, str], Probe]:
    """What looks at them, by (metrics, dependency): one probe for each such pair, named `patterns-DEPENDENCY`."""
    probes: dict[tuple[str, str], Probe] = {}
    for each in expected:
        place = (each.of.metrics, each.of.dependency)
        if place not in probes:
            query = ResilienceQuery(metrics=place[0], dependency=place[1])
            same = sum(dependency == place[1] for _, dependency in probes)
            name = f"patterns-{place[1][:48]}" + (f"-{same + 1}" if same else "")
            probes[place] = Probe(name=name, resilience=query, every=_EVERY, timeout=Duration.parse("2s"))
    return probes
