"""The `http` probe: one request, its status and its latency."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from squall.errors import InputError
from squall.probes.call import prepare
from squall.probes.exchange import Exchange
from squall.probes.outcomes import of_failure
from squall.probes.samples import Sample
from squall.probes.traceparent import unless_given
from squall.probes.wire import Malformed

if TYPE_CHECKING:
    from squall.probes.spec import Probe
    from squall.probes.traceparent import Marks

__all__ = ["HttpProbe"]


class HttpProbe:
    """Asks one URL, on a new connection each time; redirects are not followed (a 3xx is an answer).

    A sample is `ok` when the status counts as success, else `error` with the status as detail; `timeout` after the
    shorter of the probe's and the request's time-out, name look-up, connecting and TLS included.
    """

    def __init__(self, probe: Probe, marks: Marks | None = None) -> None:
        if probe.http is None:
            raise InputError(f"{probe.name}: not an http probe")
        self._name = probe.name
        self._call = prepare(probe.http, where=probe.name, close=True)
        self._exchange = Exchange(self._call)
        self._timeout_s = min(probe.timeout.seconds, probe.http.timeout.seconds)
        self._marks = unless_given(marks, probe.http.headers)
        self.last_failure = ""

    def series(self) -> tuple[str, ...]:
        """Its one series of requests."""
        return (self._name,)

    async def sample(self) -> list[Sample]:
        """One measurement; a failure is one too."""
        begun_ns = time.monotonic_ns()
        header, span = (self._marks.header(begun_ns), self._marks.span(begun_ns)) if self._marks else (b"", 0)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange.run(header)
        except (OSError, Malformed) as error:
            self.last_failure = str(error) or f"no answer within {self._timeout_s:g} s"
            outcome, detail = of_failure(error)
            return [Sample(self._name, begun_ns, time.monotonic_ns() - begun_ns, outcome, detail=detail, span=span)]
        took_ns = time.monotonic_ns() - begun_ns
        if answer.status in self._call.success:
            return [Sample(self._name, begun_ns, took_ns, "ok", detail=answer.status, span=span)]
        self.last_failure = f"status {answer.status}"
        return [Sample(self._name, begun_ns, took_ns, "error", detail=answer.status, span=span)]

    async def close(self) -> None:
        """Nothing is held between samples."""
