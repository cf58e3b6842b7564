"""Before an ASGI application (Starlette, FastAPI, Quart, Litestar, Django): pools by priority, and request durations.

    pools = PriorityPools("order")
    app = PriorityMiddleware(app, pools, limiter=by_tenant, key=lambda scope: tenant_of(scope))
    app = MeasuringMiddleware(app, "order", metrics_path="/metrics")     # outermost: it sees what is refused too

On asyncio and trio. Only HTTP requests are held back: web sockets and the lifespan pass as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable, Iterable, MutableMapping
from contextlib import nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

from squall_resilience.errors import Overloaded, RateLimited
from squall_resilience.metrics import registry as process_registry
from squall_resilience.propagation import carrying
from squall_resilience.server.durations import RequestDurations
from squall_resilience.server.listening import Listening
from squall_resilience.server.metrics import MetricsApp, trace_parent
from squall_resilience.server.refusal import TOO_LATE, Refusal, refusal_of, time_left

if TYPE_CHECKING:
    from squall_resilience.metrics import Registry
    from squall_resilience.rate_limiter import RateLimiter
    from squall_resilience.server.pools import Passage, PriorityPools

__all__ = ["MeasuringMiddleware", "PriorityMiddleware", "route_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLIENT_GONE = 499
"""What a request counts as whose client went away before there was an answer; the number is nginx's."""


class PriorityMiddleware:
    """Gives each request a slot of its priority's pool, or an answer at once: 429, 503 or 504.

    The priority is the header that the pools' settings name, or `priority(scope)`. The slot is held until the application
    is done, its stream included; a client that goes away while its request waits gives its place back. `limiter` bounds
    requests before they take a slot, each key for itself if `key(scope)` gives one. The request's deadline and trace are
    carried on to what the application calls, unless `carry` is false.
    """

    def __init__(
        self,
        app: Application,
        pools: PriorityPools,
        *,
        priority: Callable[[Scope], str | None] | None = None,
        limiter: RateLimiter | None = None,
        key: Callable[[Scope], Hashable] | None = None,
        carry: bool = True,
    ) -> None:
        self.app, self.pools = app, pools
        self._priority, self._limiter, self._key, self._carry = priority, limiter, key, carry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _texts(scope["headers"])
        left = time_left(headers)
        if left is not None and left <= 0:
            await refuse(TOO_LATE, scope, send)
            return
        with carrying(headers) if self._carry else nullcontext():
            try:
                if self._limiter is not None:
                    self._limiter.take(self._key(scope) if self._key else None)
                passage = self.pools.place(self._priority_of(scope, headers), within=left)
                listening = await enter(passage, receive)
            except (Overloaded, RateLimited) as error:
                await refuse(refusal_of(error), scope, send)
                return
            if not listening.gone:
                async with passage:
                    await self.app(scope, listening.receive, send)

    def _priority_of(self, scope: Scope, headers: Iterable[tuple[str, str]]) -> str | None:
        if self._priority is not None:
            return self._priority(scope)
        wanted = self.pools.settings.header.lower()
        return next((value for name, value in headers if name.lower() == wanted), None)


async def enter(passage: Passage, receive: Receive) -> Listening:
    """Wait for the passage's slot, and listen to the client only if it has to wait. Raises Overloaded."""
    listening = Listening(receive)
    passage.arrive()
    if not passage.waiting:
        await passage.wait()
        return listening
    refused: Overloaded | None = None
    try:
        async with listening.until_gone(passage.abandon):
            try:
                await passage.wait()
            except Overloaded as error:
                refused = error
    except BaseException:
        passage.abandon()
        raise
    if refused is not None and not listening.gone:
        raise refused
    return listening


async def refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Answer without the application."""
    headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else refusal.body})


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


class MeasuringMiddleware:
    """Measures requests as `http_server_request_duration_seconds{service,route,status}`, with exemplars.

    `route(scope)`, asked after the application, names the route; by default `route_of`. Never give it a raw path: each
    value is a series. `metrics_path` is answered here with all numbers of the registry.
    """

    def __init__(
        self,
        app: Application,
        service: str,
        *,
        route: Callable[[Scope], str] | None = None,
        metrics_path: str | None = None,
        durations: RequestDurations | None = None,
        registry: Registry = process_registry,
    ) -> None:
        self.app = app
        self.durations = durations or RequestDurations(service, registry=registry)
        self._route = route or route_of
        self._metrics_path = metrics_path
        self._metrics = MetricsApp(registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._metrics_path is not None and scope["path"] == self._metrics_path:
            await self._metrics(scope, receive, send)
            return
        began, status, trace = perf_counter(), 0, ""
        header = next((value for name, value in scope["headers"] if name == b"traceparent"), b"").decode("latin-1")

        async def watched(message: Message) -> None:
            nonlocal status, trace
            if message["type"] == "http.response.start":
                status = message["status"]
                trace = trace_parent(header)  # here the application's own span is the current one, if it has one
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            status = status or 500
            raise
        finally:
            route = self._route(scope)
            self.durations.observe(
                route, status or CLIENT_GONE, perf_counter() - began, traceparent=trace or trace_parent(header)
            )


def route_of(scope: Scope) -> str:
    """The template of the route that served a request, `/orders/{id}`, as Starlette and FastAPI leave it; else "unmatched".

    Where the framework leaves no template it is made from the path and its parameters, or else it is the endpoint's name:
    there are never more routes than the application has.
    """
    endpoint, route = scope.get("endpoint"), scope.get("route")
    parameters: dict[str, Any] = scope.get("path_params") or {}
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if isinstance(template, str):
        if getattr(route, "app", None) is endpoint:  # a mount: what is behind it has no routes
            return template
        prefix = scope.get("root_path", "").removeprefix(scope.get("app_root_path", ""))
        outer = {name: value for name, value in parameters.items() if f"{{{name}}}" not in template}
        return (_template(prefix, outer) or "") + template
    if endpoint is None:
        return "unmatched"
    if not (inspect.isroutine(endpoint) or inspect.isclass(endpoint)):  # an application that is mounted
        return "mounted"
    return _template(scope["path"], parameters) or str(getattr(endpoint, "__qualname__", "unmatched"))


def _template(path: str, parameters: dict[str, Any]) -> str | None:
    """The path with its parameters' names; None when one of them does not stand in it as it was read."""
    end = len(path)
    for name, value in reversed(parameters.items()):
        place = path.rfind(str(value), 0, end)
        if place < 0 or not str(value):
            return None
        path = f"{path[:place]}{{{name}}}{path[place + len(str(value)) :]}"
        end = place
    return path
