"""The `resilience` probe: what the patterns that guard a dependency say of themselves, from the service's `/metrics`."""

from __future__ import annotations

import errno
import math
import time
from typing import TYPE_CHECKING

from squall.errors import InputError
from squall.probes.call import prepare
from squall.probes.exchange import Exchange, Unanswered, asked
from squall.probes.exposition import read_exposition
from squall.probes.samples import Sample
from squall.probes.spec import HttpRequest

if TYPE_CHECKING:
    from squall.probes.exposition import Metric
    from squall.probes.spec import Probe

__all__ = ["VALUES", "ResilienceProbe", "pattern_values"]

ANSWER_BYTES_MOST = 16 << 20
VALUES = ("open", "opened", "retryCalls", "retryAttempts", "primary", "fellBack", "unanswered")
_PREFIX = "resilience_"
_OPENNESS = {"open": 1.0, "forced_open": 1.0, "half_open": 0.5, "closed": 0.0, "forced_closed": 0.0}
_OK = 200


class ResilienceProbe:
    """Asks a service for its metrics and publishes VALUES of one dependency: those of the patterns that it has."""

    def __init__(self, probe: Probe) -> None:
        if probe.resilience is None:
            raise InputError(f"{probe.name}: not a resilience probe")
        self._name, self._dependency = probe.name, probe.resilience.dependency
        request = HttpRequest(url=probe.resilience.metrics, headers={"Accept": "text/plain"}, success=("2xx",))
        self._exchange = Exchange(prepare(request, where=probe.name, close=True), body_most=ANSWER_BYTES_MOST)
        self._timeout_s = probe.timeout.seconds
        self.last_failure = ""

    def series(self) -> tuple[str, ...]:
        """Whether it could be read, and each value."""
        return (self._name, *(f"{self._name}.{value}" for value in VALUES))

    async def sample(self) -> list[Sample]:
        """One look; an answer without any pattern of this dependency is an error whose reason is `last_failure`."""
        begun_ns = time.monotonic_ns()
        answer = await asked(self._exchange, self._timeout_s)
        took_ns = time.monotonic_ns() - begun_ns
        if isinstance(answer, Unanswered):
            self.last_failure = answer.reason
            return [Sample(self._name, begun_ns, took_ns, answer.outcome, detail=answer.detail)]
        try:
            values = _values(answer.status, bytes(answer.body), self._dependency)
        except ValueError as error:
            self.last_failure = str(error)
            detail = answer.status if answer.status != _OK else errno.EPROTO
            return [Sample(self._name, begun_ns, took_ns, "error", detail=detail)]
        looked = Sample(self._name, begun_ns, took_ns, "ok", detail=answer.status)
        return [looked, *(Sample(f"{self._name}.{n}", begun_ns, 0, "value", value) for n, value in values.items())]

    async def close(self) -> None:
        """Nothing is held between samples."""


def _values(status: int, body: bytes, dependency: str) -> dict[str, float]:
    if status != _OK:
        raise ValueError(f"status {status} instead of metrics")
    values = pattern_values(body.decode("utf-8", "replace"), dependency)
    if not values:
        raise ValueError(
            f"there are no metrics of patterns for {dependency!r} (named resilience_..., label dependency)"
        )
    return values


def pattern_values(text: str, dependency: str) -> dict[str, float]:
    """VALUES of one dependency from metrics as Prometheus text; ValueError for what is no such text."""
    values: dict[str, float] = {}
    for metric in read_exposition(text, _PREFIX):
        if metric.labels.get("dependency") == dependency and math.isfinite(metric.value):
            _add(values, metric)
    return values


_COUNTED = {
    "resilience_retry_calls_total": "retryCalls",
    "resilience_retry_attempts_total": "retryAttempts",
}
_ANSWERS = {"primary": "primary", "preset": "fellBack", "cached": "fellBack", "none": "unanswered"}


def _add(values: dict[str, float], metric: Metric) -> None:
    """One sample into the values: a state is the one that is 1, counts of one kind add up."""
    name, labels = metric.name, metric.labels
    if name == "resilience_breaker_state":
        values.setdefault("open", 0.0)
        values.setdefault("opened", 0.0)
        if metric.value:
            values["open"] = _OPENNESS.get(labels.get("state", ""), 0.0)
    elif name == "resilience_breaker_transitions_total" and labels.get("to") == "open":
        values["opened"] = values.get("opened", 0.0) + metric.value
    elif name in _COUNTED:
        values[_COUNTED[name]] = values.get(_COUNTED[name], 0.0) + metric.value
    elif name == "resilience_fallback_calls_total":
        for each in ("primary", "fellBack", "unanswered"):
            values.setdefault(each, 0.0)
        if (answer := _ANSWERS.get(labels.get("answer", ""))) is not None:
            values[answer] += metric.value
