"""Numbers of every pattern, read when asked for: a call pays for its own counters only.

A pattern yields its samples; a registry holds patterns weakly, by (kind, dependency), and renders them as Prometheus
text (exposition format 0.0.4) or OpenMetrics 1.0. Names are in docs/reference/resilience-metrics.md.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakValueDictionary

from squall_resilience.errors import ResilienceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MetricNameClash", "Registry", "Sample", "Source", "registry"]

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Sample:
    """One number. Of a histogram there are `_bucket` samples with label `le`, `_sum` and `_count`, under `family`."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()
    kind: Kind = "gauge"
    help: str = ""
    family: str = ""
    """The name under which TYPE and HELP stand; empty: `name`."""
    exemplar: tuple[tuple[tuple[str, str], ...], float, float] | None = None
    """Labels (trace_id), value, wall time in seconds; shown in OpenMetrics only."""


class Source(Protocol):
    """What a registry can hold: a pattern, or a server's own counters."""

    @property
    def kind(self) -> str:
        """What it is: "breaker"."""

    @property
    def dependency(self) -> str:
        """Whose numbers these are: "inventory"."""

    def samples(self) -> Iterable[Sample]:
        """Its numbers now."""
        ...  # pragma: no cover


class MetricNameClash(ResilienceError, ValueError):
    """Two sources of one kind have the same name: their numbers could not be told apart."""


class Registry:
    """Sources by (kind, name), held weakly: what nobody uses any more is counted no more."""

    def __init__(self) -> None:
        self._sources: WeakValueDictionary[tuple[str, str], Source] = WeakValueDictionary()
        self._lock = threading.Lock()

    def add(self, source: Source) -> None:
        """Hold a source. Raises MetricNameClash while another one of its kind and name is alive."""
        key = (source.kind, source.dependency)
        with self._lock:
            there = self._sources.get(key)
            if there is not None and there is not source:
                raise MetricNameClash(
                    f"there is a {source.kind} named {source.dependency!r} already; share that one, or name this one"
                    " otherwise (two would count under one name)",
                    dependency=source.dependency,
                )
            self._sources[key] = source

    def remove(self, source: Source) -> None:
        """Hold it no more; harmless when it is not held."""
        key = (source.kind, source.dependency)
        with self._lock:
            if self._sources.get(key) is source:
                del self._sources[key]

    def __iter__(self) -> Iterator[Source]:
        with self._lock:
            return iter(sorted(self._sources.values(), key=lambda each: (each.kind, each.dependency)))

    def find(self, kind: str, dependency: str) -> Source | None:
        """The source of this kind and name, if it is alive."""
        return self._sources.get((kind, dependency))

    def samples(self) -> Iterator[Sample]:
        """The numbers of all sources."""
        for source in self:
            yield from source.samples()

    def render(self, *, openmetrics: bool = False) -> str:
        """All numbers as Prometheus text, or as OpenMetrics with exemplars; each family once, its samples together."""
        families: dict[str, list[Sample]] = {}
        for sample in self.samples():
            families.setdefault(sample.family or sample.name, []).append(sample)
        lines: list[str] = []
        for name, samples in sorted(families.items()):
            kind = samples[0].kind
            base = name.removesuffix("_total") if openmetrics and kind == "counter" else name
            lines += [f"# HELP {base} {_escape(samples[0].help)}", f"# TYPE {base} {kind}"]
            lines += [_line(each, openmetrics=openmetrics) for each in samples]
        if openmetrics:
            lines.append("# EOF")
        return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    quote = '"'
    return ",".join(f"{name}={quote}{_escape(value).replace(quote, chr(92) + quote)}{quote}" for name, value in labels)


def _number(value: float) -> str:
    if value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _line(sample: Sample, *, openmetrics: bool) -> str:
    labels = f"{{{_labels(sample.labels)}}}" if sample.labels else ""
    line = f"{sample.name}{labels} {_number(sample.value)}"
    if openmetrics and sample.exemplar is not None:
        of, value, at = sample.exemplar
        line += f" # {{{_labels(of)}}} {_number(value)} {at:.3f}"
    return line


registry = Registry()
"""The process's own: every pattern is in it unless it was made with `registry=` another, or `registry=None`."""
