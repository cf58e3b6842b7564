"""Chaos inside a gRPC service, blocking and asyncio; unary calls and streams are hit at their beginning.

What is decided on the way to the handler; the waiting is done where the handler runs, never in the server's own loop.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from squall_resilience.chaos.decision import Seen
from squall_resilience.chaos.middleware import Chaos
from squall_resilience.chaos.waiting import wait, wait_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from squall_resilience.chaos.decision import Hit
    from squall_resilience.chaos.settings import ChaosSettings

__all__ = ["AioChaosInterceptor", "ChaosInterceptor", "status_of"]

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
_BY_HTTP = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
"""gRPC's doc/http-grpc-status-mapping.md."""
_MESSAGE = "chaos injected"


def status_of(number: int) -> grpc.StatusCode:
    """The status for a number of gRPC's own, or for an HTTP status."""
    return _BY_NUMBER.get(number) or _BY_HTTP.get(number, grpc.StatusCode.UNKNOWN)


class _Kind(NamedTuple):
    """One of the four kinds of method: what holds its function, and what makes a handler of another."""

    function: str
    handler: Callable[..., Any]


_KINDS = {
    (False, False): _Kind("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): _Kind("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): _Kind("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): _Kind("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class _Stripped:
    """A call's context without one of the metadata that it came with."""

    def __init__(self, context: Any, header: str) -> None:
        self._context, self._header = context, header

    def invocation_metadata(self) -> tuple[Any, ...]:
        """What the call brought, without it."""
        return _kept(self._context.invocation_metadata(), self._header)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _kept(metadata: Sequence[Any] | None, header: str) -> tuple[Any, ...]:
    return tuple(pair for pair in metadata or () if pair[0] != header)


class _Interceptor:
    """What both servers' interceptors decide alike."""

    def __init__(self, settings: ChaosSettings | None = None, *, chaos: Chaos | None = None) -> None:
        self.chaos = chaos if chaos is not None else Chaos(settings, grpc=True)

    def _decide(self, details: Any) -> tuple[Any, Hit | None, Seen]:
        """What the next interceptor is given, and what happens to the call."""
        chaos, hit, seen = self.chaos, None, _seen(details)
        sources = () if chaos.off else chaos.sources()
        if sources:
            hit = chaos.consider(sources, seen)
        if chaos.strips:
            kept = _kept(details.invocation_metadata, chaos.strips)
            details = type(details)(details.method, kept)  # grpc.aio takes no other type than its own
        return details, hit, seen


def _seen(details: Any) -> Seen:
    def values(name: str) -> list[str]:
        wanted, metadata = name.lower(), details.invocation_metadata or ()
        return [value for key, value in metadata if key == wanted and isinstance(value, str)]

    return Seen("POST", details.method, values)


class ChaosInterceptor(_Interceptor, grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """For `grpc.server(..., interceptors=[ChaosInterceptor()])`. Off until settings or an experiment say otherwise.

    A delay holds a thread of the server's pool, as a slow service would. `settings` None: those of the environment
    (SQUALL_CHAOS_*). Raises SettingsError.
    """

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The call's handler, through what happens to the call."""
        chaos = self.chaos
        details, hit, seen = self._decide(handler_call_details)
        handler = continuation(details)
        if handler is None or (hit is None and not chaos.strips):
            return handler

        return _rebuilt(handler, lambda function: _blocking(function, chaos, hit, seen))


class AioChaosInterceptor(_Interceptor, grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """For `grpc.aio.server(interceptors=[AioChaosInterceptor()])`; else as `ChaosInterceptor`."""

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The call's handler, through what happens to the call."""
        chaos = self.chaos
        details, hit, seen = self._decide(handler_call_details)
        handler = await continuation(details)
        if handler is None or (hit is None and not chaos.strips):
            return handler

        return _rebuilt(handler, lambda function: _asynchronous(function, chaos, hit, seen))


def _answer(hit: Hit, context: Any) -> None:
    """The headers of an abort as trailing metadata, as far as metadata can be that."""
    trailing = tuple(
        (name.lower(), value)
        for name, value in hit.rule.abort_headers.items()
        if value.isascii() and not name.lower().startswith("grpc-") and not name.lower().endswith("-bin")
    )
    if trailing:
        context.set_trailing_metadata(trailing)


def _rebuilt(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    kind = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
    return kind.handler(
        wrap(getattr(handler, kind.function)),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _blocking(function: Callable[..., Any], chaos: Chaos, hit: Hit | None, seen: Seen) -> Callable[..., Any]:
    def through(request: Any, context: Any) -> Any:
        if hit is not None:
            with chaos.tell(hit, seen):
                wait(chaos, hit)
            if hit.status is not None:
                _answer(hit, context)
                context.abort(status_of(hit.status), hit.rule.abort_body or _MESSAGE)  # raises
        return function(request, _context(context, chaos))

    return through


def _asynchronous(function: Callable[..., Any], chaos: Chaos, hit: Hit | None, seen: Seen) -> Callable[..., Any]:
    """The same kind of function: grpc.aio looks at which it is (a plain one runs in a thread, with a blocking context)."""

    async def before(context: Any) -> Any:
        if hit is not None:
            with chaos.tell(hit, seen):
                await wait_async(chaos, hit)
            if hit.status is not None:
                _answer(hit, context)
                await context.abort(status_of(hit.status), hit.rule.abort_body or _MESSAGE)  # raises
        return _context(context, chaos)

    if inspect.isasyncgenfunction(function):

        async def streaming(request: Any, context: Any) -> AsyncIterator[Any]:
            async with contextlib.aclosing(function(request, await before(context))) as answers:
                async for answer in answers:
                    yield answer

        return streaming
    if inspect.iscoroutinefunction(function):

        async def unary(request: Any, context: Any) -> Any:
            return await function(request, await before(context))

        return unary
    return _blocking(function, chaos, hit, seen)


def _context(context: Any, chaos: Chaos) -> Any:
    return _Stripped(context, chaos.strips) if chaos.strips else context
