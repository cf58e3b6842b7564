"""All numbers of the process for Prometheus: what `/metrics` answers, in either text format, as ASGI and WSGI applications.

    app = MeasuringMiddleware(app, "order", metrics_path="/metrics")     # see `asgi` and `wsgi`
    routes = [Mount("/metrics", MetricsApp())]                           # or by itself

`exposition` gives the same to a server that is neither.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from squall_resilience.metrics import Registry
from squall_resilience.metrics import registry as process_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Scope = MutableMapping[str, Any]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

__all__ = ["OPENMETRICS", "TEXT", "MetricsApp", "exposition", "metrics_wsgi", "trace_parent"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def exposition(accept: str = "", registry: Registry = process_registry) -> tuple[str, bytes]:
    """Content type and body: OpenMetrics, with exemplars, for who prefers it by `Accept`; else the older text format."""
    openmetrics = _quality(accept, "application/openmetrics-text")
    chosen = openmetrics > 0 and openmetrics >= _quality(accept, "text/plain")
    return (OPENMETRICS if chosen else TEXT), registry.render(openmetrics=chosen).encode()


def _quality(accept: str, wanted: str) -> float:
    """The highest q of a media type that is named; ranges with a * do not count: who sends only those gets the older one."""
    best = 0.0
    for each in accept.split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        if name != wanted:
            continue
        q = next((value for key, _, value in (part.partition("=") for part in parameters) if key.strip() == "q"), "1")
        try:
            best = max(best, float(q))
        except ValueError:
            continue
    return best


def trace_parent(header: str) -> str:
    """The trace that a request is served in, as a `traceparent`: OpenTelemetry's current span, else the request's header."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:  # imported by who traces; nobody else pays for it
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    return header


class MetricsApp:
    """An ASGI application that answers GET and HEAD with all numbers, whatever the path."""

    def __init__(self, registry: Registry = process_registry) -> None:
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Serve one request; other kinds of scope are left alone."""
        if scope["type"] != "http":
            return
        if scope["method"] not in {"GET", "HEAD"}:
            await send({"type": "http.response.start", "status": 405, "headers": [(b"allow", b"GET, HEAD")]})
            await send({"type": "http.response.body"})
            return
        accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        kind, body = exposition(accept, self._registry)
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def metrics_wsgi(registry: Registry = process_registry) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The same as a WSGI application."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
            return []
        kind, body = exposition(environ.get("HTTP_ACCEPT", ""), registry)
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app
