"""What a request that is being served hands on to the requests made for it: the time that is left, and the trace.

Where OpenTelemetry is in use its propagators write the trace's headers. Elsewhere those that came in are passed on as they
were, so that a service without tracing does not break the trace of those around it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from squall_resilience import deadline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["TRACE_HEADERS", "carrying", "outgoing"]

TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
"""W3C Trace Context and Baggage."""

_carried: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("squall_resilience.carried", default=())


@contextmanager
def carrying(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterator[None]:
    """A block that serves a request with these headers: what it calls is part of the request's trace, and in its deadline.

    Names in any case; what is not of the trace is passed over.
    """
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    token = _carried.set(tuple((name.lower(), value) for name, value in pairs if name.lower() in TRACE_HEADERS))
    left = deadline.from_headers(pairs)
    try:
        if left is None:
            yield
        else:
            with deadline.within(left):
                yield
    finally:
        _carried.reset(token)


def outgoing(given: Iterable[str] = ()) -> dict[str, str]:
    """Headers to send along with a request whose caller has set those named in `given`; names in lower case.

    Nothing that the caller has set is written again.
    """
    headers = {name.lower(): value for name, value in deadline.to_headers().items()}
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is not None:
        propagate.inject(headers)
    if "traceparent" not in headers:
        headers.update(_carried.get())
    if headers:
        for name in given:
            headers.pop(name.lower(), None)
    return headers
