"""The `prometheus` probe: the one number that a PromQL query yields."""

from __future__ import annotations

import errno
import json
import math
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from squall.errors import InputError
from squall.probes.call import prepare
from squall.probes.exchange import Exchange, Unanswered, asked
from squall.probes.samples import Sample
from squall.probes.spec import HttpRequest

if TYPE_CHECKING:
    from squall.probes.spec import Probe

__all__ = ["PrometheusProbe", "one_number"]

ANSWER_BYTES_MOST = 4 << 20


class PrometheusProbe:
    """Asks `/api/v1/query` (Prometheus HTTP API, "instant queries"); success is exactly one finite number, published as `.value`."""

    def __init__(self, probe: Probe) -> None:
        if probe.prometheus is None:
            raise InputError(f"{probe.name}: not a prometheus probe")
        query = probe.prometheus
        self._name = probe.name
        base = query.url.partition("?")[0].rstrip("/")
        request = HttpRequest(
            url=f"{base}/api/v1/query", method="POST", headers={"Content-Type": "application/x-www-form-urlencoded", **query.headers},
            body=f"query={quote(query.query, safe='')}", success=("2xx",),
        )  # fmt: skip
        self._exchange = Exchange(prepare(request, where=probe.name, close=True), body_most=ANSWER_BYTES_MOST)
        self._timeout_s = probe.timeout.seconds
        self.last_failure = ""

    def series(self) -> tuple[str, ...]:
        """Whether it answered with a number, and the number."""
        return (self._name, f"{self._name}.value")

    async def sample(self) -> list[Sample]:
        """One query; an answer that is no single number is an error whose reason is `last_failure`."""
        begun_ns = time.monotonic_ns()
        answer = await asked(self._exchange, self._timeout_s)
        took_ns = time.monotonic_ns() - begun_ns
        if isinstance(answer, Unanswered):
            self.last_failure = answer.reason
            return [Sample(self._name, begun_ns, took_ns, answer.outcome, detail=answer.detail)]
        try:
            number = one_number(answer.status, bytes(answer.body))
        except ValueError as error:
            self.last_failure = str(error)
            detail = answer.status if answer.status != 200 else errno.EPROTO  # noqa: PLR2004 - 200 would read as success
            return [Sample(self._name, begun_ns, took_ns, "error", detail=detail)]
        return [
            Sample(self._name, begun_ns, took_ns, "ok", detail=answer.status),
            Sample(f"{self._name}.value", begun_ns, 0, "value", number),
        ]

    async def close(self) -> None:
        """Nothing is held between samples."""


def one_number(status: int, body: bytes) -> float:
    """The number in an answer of the query API; ValueError says why there is none."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"status {status} with a body that is not JSON: is this a Prometheus?") from None
    if not isinstance(data, dict) or data.get("status") != "success":
        reason = data.get("error") if isinstance(data, dict) else None
        raise ValueError(f"status {status}: {str(reason)[:500] if reason else 'no answer of a Prometheus'}")
    result = data.get("data")
    kind, value = (result.get("resultType"), result.get("result")) if isinstance(result, dict) else (None, None)
    if kind == "vector" and isinstance(value, list):
        if len(value) != 1:
            raise ValueError(
                f"the query yields {len(value)} series, not one"
                + ("; aggregate it, for example with sum()" if value else "")
            )
        value = value[0].get("value") if isinstance(value[0], dict) else None
    elif kind != "scalar":
        raise ValueError(f"the query yields a {kind}, not a scalar or a vector of one element")
    try:
        number = float(value[1])  # type: ignore[index]  # what else it could be ends in one of these errors
    except (TypeError, ValueError, IndexError, KeyError):
        raise ValueError("the answer holds no number") from None
    if not math.isfinite(number):
        raise ValueError(f"the query yields {value[1]}")  # type: ignore[index]  # as above
    return number
