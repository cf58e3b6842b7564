"""Before a WSGI application (Flask, Django, Pyramid, Bottle): pools by priority, and request durations; see `asgi`.

    pools = PriorityPools("order")
    app = PriorityMiddleware(app, pools)
    app = MeasuringMiddleware(app, "order", metrics_path="/metrics")

The server's own threads wait for a slot here, so it must have more of them than the pools have workers: those that wait
are what answers 503 in time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextvars import Context, copy_context
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any

from squall_resilience.errors import Overloaded, RateLimited
from squall_resilience.metrics import registry as process_registry
from squall_resilience.propagation import carrying
from squall_resilience.server.durations import RequestDurations
from squall_resilience.server.metrics import metrics_wsgi, trace_parent
from squall_resilience.server.refusal import TOO_LATE, Refusal, refusal_of, time_left

if TYPE_CHECKING:
    from squall_resilience.metrics import Registry
    from squall_resilience.rate_limiter import RateLimiter
    from squall_resilience.server.pools import PriorityPools

__all__ = ["MeasuringMiddleware", "PriorityMiddleware", "route_of"]

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


class PriorityMiddleware:
    """Gives each request a slot of its priority's pool, or an answer at once: 429, 503 or 504.

    The priority is the header that the pools' settings name, or `priority(environ)`. The slot is held until the answer's
    body is at its end or closed. `limiter` bounds requests before they take a slot, each key for itself if `key(environ)` gives
    one. The request's deadline and trace are carried on to what the application calls.
    """

    def __init__(
        self,
        app: Application,
        pools: PriorityPools,
        *,
        priority: Callable[[Environ], str | None] | None = None,
        limiter: RateLimiter | None = None,
        key: Callable[[Environ], Hashable] | None = None,
    ) -> None:
        self.app, self.pools = app, pools
        self._priority, self._limiter, self._key = priority, limiter, key

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        headers = [(key[5:].replace("_", "-"), str(value)) for key, value in environ.items() if key.startswith("HTTP_")]
        left = time_left(headers)
        if left is not None and left <= 0:
            return refuse(TOO_LATE, environ, start_response)
        context, carried = copy_context(), carrying(headers)
        context.run(
            carried.__enter__
        )  # in this request's own context: other requests have this thread between its parts
        passage = self.pools.place(self._priority_of(environ), within=left)

        def ended(error: BaseException | None) -> None:
            try:
                passage.__exit__(None if error is None else type(error), error, None)
            finally:
                context.run(carried.__exit__, None, None, None)

        try:
            if self._limiter is not None:
                self._limiter.take(self._key(environ) if self._key else None)
            context.run(passage.__enter__)
            body = context.run(self.app, environ, start_response)
        except (Overloaded, RateLimited) as error:
            refusal = context.run(refusal_of, error)
            entered = passage.entered
            ended(error)
            if entered:
                raise  # the application's own
            return refuse(refusal, environ, start_response)
        except BaseException as error:
            ended(error)
            raise
        if isinstance(body, (list, tuple)):  # it is all there
            ended(None)
            return body
        return Body(body, context, ended)

    def _priority_of(self, environ: Environ) -> str | None:
        if self._priority is not None:
            return self._priority(environ)
        value = environ.get("HTTP_" + self.pools.settings.header.upper().replace("-", "_"))
        return None if value is None else str(value)


class Body:
    """An answer's body that tells, once, when it is at its end, has failed or is closed."""

    def __init__(
        self, body: Iterable[bytes], context: Context, ended: Callable[[BaseException | None], object]
    ) -> None:
        self._body, self._context = body, context
        self._ended: Callable[[BaseException | None], object] | None = ended
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = self._context.run(iter, self._body)
            return self._context.run(next, self._iterator)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise

    def close(self) -> None:
        """The server's word that it is done, also when the client has gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._context.run(close)
        finally:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)


def refuse(refusal: Refusal, environ: Environ, start_response: Any) -> list[bytes]:
    """Answer without the application."""
    start_response(f"{refusal.status} {refusal.reason}", refusal.headers())
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [refusal.body]


class MeasuringMiddleware:
    """Measures requests as `http_server_request_duration_seconds{service,route,status}`, with exemplars.

    `route(environ)`, asked after the application, names the route; by default `route_of`. Never give it a raw path: each
    value is a series. `metrics_path` is answered here with all numbers of the registry.
    """

    def __init__(
        self,
        app: Application,
        service: str,
        *,
        route: Callable[[Environ], str] | None = None,
        metrics_path: str | None = None,
        durations: RequestDurations | None = None,
        registry: Registry = process_registry,
    ) -> None:
        self.app = app
        self.durations = durations or RequestDurations(service, registry=registry)
        self._route = route or route_of
        self._metrics_path = metrics_path
        self._metrics = metrics_wsgi(registry)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve one request, as WSGI has it."""
        if self._metrics_path is not None and environ.get("PATH_INFO") == self._metrics_path:
            return self._metrics(environ, start_response)
        began, status, trace = perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR.value, ""
        header = str(environ.get("HTTP_TRACEPARENT", ""))

        def watched(line: str, *rest: Any) -> Any:
            nonlocal status, trace
            status, trace = int(line[:3]), trace_parent(header)
            return start_response(line, *rest)

        def ended(error: BaseException | None) -> None:  # noqa: ARG001 - what was answered counts
            self.durations.observe(
                self._route(environ), status, perf_counter() - began, traceparent=trace or trace_parent(header)
            )

        try:
            body = self.app(environ, watched)
        except BaseException as error:
            ended(error)
            raise
        if isinstance(body, (list, tuple)):
            ended(None)
            return body
        return Body(body, copy_context(), ended)


def route_of(environ: Environ) -> str:
    """The template that served a request: Flask's and Werkzeug's rule, or what the application put as `squall.route`; else "unmatched"."""
    request = environ.get("werkzeug.request")
    rule = getattr(getattr(request, "url_rule", None), "rule", None)
    return str(rule or environ.get("squall.route") or "unmatched")
