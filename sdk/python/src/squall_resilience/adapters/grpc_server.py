"""gRPC servers: a handler has the time that its caller left it, a place in a pool of its priority, and its caller's trace.

    grpc.server(pool, interceptors=[ServingInterceptor(pools)])
    grpc.aio.server(interceptors=[AioServingInterceptor(pools)])

What is shed, and what a pattern in the handler rejects, is UNAVAILABLE with the pushback that gRPC's own retries honour; a deadline
that passed in the handler is DEADLINE_EXCEEDED.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from squall_resilience.adapters.grpc_rules import PUSHBACK, priority
from squall_resilience.deadline import within
from squall_resilience.errors import DeadlineExceeded, Rejected
from squall_resilience.propagation import carrying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from squall_resilience.server.pools import PriorityPools

__all__ = ["AioServingInterceptor", "ServingInterceptor"]

_FOR_EVER_S = 31_536_000.0


class ServingInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """For `grpc.server`. `pools` None: no pools, only what is carried along. `priority_key` names the metadata."""

    def __init__(self, pools: PriorityPools | None = None, *, priority_key: str = "x-priority") -> None:
        self._pools, self._key = pools, priority_key

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler, with what it is to have around it."""
        handler = continuation(handler_call_details)
        return handler if handler is None else _rebuilt(handler, self._wrapped)

    def _wrapped(self, function: Callable[..., Any], *, streams: bool) -> Callable[..., Any]:
        def one(request: Any, context: Any) -> Any:
            with _answering(context), self._around(context):
                return function(request, context)

        def many(request: Any, context: Any) -> Iterator[Any]:
            with _answering(context), self._around(context):
                yield from function(request, context)

        return many if streams else one

    @contextlib.contextmanager
    def _around(self, context: Any) -> Iterator[None]:
        with _carried(context, self._key) as level:
            if self._pools is None:
                yield
            else:
                with self._pools.place(level):
                    yield


class AioServingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """For `grpc.aio.server`; else as `ServingInterceptor`. Handlers are to be asynchronous; others pass as they are."""

    def __init__(self, pools: PriorityPools | None = None, *, priority_key: str = "x-priority") -> None:
        self._pools, self._key = pools, priority_key

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The handler, with what it is to have around it."""
        handler = await continuation(handler_call_details)
        return handler if handler is None else _rebuilt(handler, self._wrapped)

    def _wrapped(self, function: Callable[..., Any], *, streams: bool) -> Callable[..., Any]:  # noqa: ARG002
        async def one(request: Any, context: Any) -> Any:
            try:
                async with self._around(context):
                    return await function(request, context)
            except (Rejected, DeadlineExceeded) as error:
                code, trailing = _status(error)
                context.set_trailing_metadata(trailing)
                await context.abort(code, str(error))

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with self._around(context), contextlib.aclosing(function(request, context)) as answers:
                    async for answer in answers:
                        yield answer
            except (Rejected, DeadlineExceeded) as error:
                code, trailing = _status(error)
                context.set_trailing_metadata(trailing)
                await context.abort(code, str(error))

        if inspect.isasyncgenfunction(function):
            return many
        return one if inspect.iscoroutinefunction(function) else function

    @contextlib.asynccontextmanager
    async def _around(self, context: Any) -> AsyncIterator[None]:
        with _carried(context, self._key) as level:
            if self._pools is None:
                yield
            else:
                async with self._pools.place(level):
                    yield


@contextlib.contextmanager
def _carried(context: Any, key: str) -> Iterator[str | None]:
    """The caller's deadline, trace and priority, for what is called within; gives the priority."""
    pairs = [(name, value) for name, value in context.invocation_metadata() or () if isinstance(value, str)]
    level = next((value for name, value in pairs if name == key), None)
    left = context.time_remaining()
    token = priority.set(level)
    try:
        with carrying(pairs):
            if left is None or left > _FOR_EVER_S:
                yield level
            else:
                with within(left):
                    yield level
    finally:
        priority.reset(token)


@contextlib.contextmanager
def _answering(context: Any) -> Iterator[None]:
    """What patterns raise, as a status."""
    try:
        yield
    except (Rejected, DeadlineExceeded) as error:
        code, trailing = _status(error)
        context.set_trailing_metadata(trailing)
        context.abort(code, str(error))  # raises


def _status(error: Rejected | DeadlineExceeded) -> tuple[Any, tuple[tuple[str, str], ...]]:
    if isinstance(error, DeadlineExceeded):
        return grpc.StatusCode.DEADLINE_EXCEEDED, ()
    wait = error.retry_after
    return grpc.StatusCode.UNAVAILABLE, () if wait is None else ((PUSHBACK, str(max(1, math.ceil(wait * 1000)))),)


_MAKERS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def _rebuilt(handler: Any, wrapped: Callable[..., Callable[..., Any]]) -> Any:
    name, maker = _MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
    return maker(
        wrapped(getattr(handler, name), streams=bool(handler.response_streaming)),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
