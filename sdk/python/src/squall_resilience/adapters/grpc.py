"""gRPC clients through a policy, blocking and asyncio.

    channel = grpc.intercept_channel(grpc.insecure_channel(target), ResilientInterceptor(policy))
    channel = grpc.aio.insecure_channel(target, interceptors=aio_interceptors(policy))

To the chain a call ends with its answer; where answers are streamed, with the first sign of life (initial metadata). A stream both
ways carries deadline, trace and priority, and goes through no chain: nobody can tell when it may be called answered.
Statuses that are failures are failures to the chain and gRPC's own errors to the caller. A fallback's answer
is a message, or where answers are streamed an iterable of them (with asyncio an asynchronous one).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from squall_resilience.adapters.grpc_rules import FailedCall, GrpcRules, PolicyFor, failure_of, made_ready, policy_for
from squall_resilience.deadline import at_most, remaining
from squall_resilience.errors import DeadlineExceeded
from squall_resilience.safe import idempotent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from squall_resilience.policy.chain import Policy

__all__ = ["ResilientInterceptor", "aio_interceptors"]


@dataclass
class _Sending:
    """A call that is to be sent; `stream_timeout` is what a stream may take in all. Without a hash, see `Sent`."""

    continuation: Callable[[Any, Any], Any]
    details: Any
    request: Any
    streamed: bool = False
    stream_timeout: float | None = None


class _Chains:
    """The function through each policy, composed once."""

    def __init__(self, policies: PolicyFor, rules: GrpcRules | None) -> None:
        self.rules = rules or GrpcRules()
        self._policies = policies
        self._composed: dict[tuple[int, bool], tuple[Policy | None, Callable[[_Sending], Any]]] = {}

    def of(
        self, method: str | bytes, wrap: Callable[[Policy | None, bool], Callable[[_Sending], Any]], *, whole: bool
    ) -> Callable[[_Sending], Any]:
        """What a call of this method goes through; `whole`: its request is at hand, to be sent again."""
        name = method.decode() if isinstance(method, bytes) else method
        policy, repeatable = policy_for(self._policies, name), whole and self.rules.may_repeat(name)
        key = id(policy), repeatable
        found = self._composed.get(key)
        if found is None:
            found = self._composed[key] = policy, wrap(policy, repeatable)
        return found[1]


class ResilientInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]  # grpcio has no types
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """For `grpc.intercept_channel`: each call goes through the policy of its service. `.future()` waits for the answer."""

    def __init__(self, policies: PolicyFor, *, rules: GrpcRules | None = None) -> None:
        self._chains = _Chains(policies, rules)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.UnaryUnaryClientInterceptor; also raises what the policy rejects with."""
        return self._through(_Sending(continuation, client_call_details, request), whole=True)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc.StreamUnaryClientInterceptor; a stream of requests is never sent again."""
        return self._through(_Sending(continuation, client_call_details, request_iterator), whole=False)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.UnaryStreamClientInterceptor."""
        whole_time = at_most(client_call_details.timeout)
        sending = _Sending(continuation, client_call_details, request, streamed=True, stream_timeout=whole_time)
        return self._through(sending, whole=True)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc.StreamStreamClientInterceptor."""
        return continuation(made_ready(client_call_details, self._chains.rules), request_iterator)

    def _through(self, sending: _Sending, *, whole: bool) -> Any:
        try:
            answer = self._chains.of(sending.details.method, self._wrap, whole=whole)(sending)
        except FailedCall as failed:
            return failed.call
        return answer if hasattr(answer, "trailing_metadata") else _Preset(answer, streamed=sending.streamed)

    def _wrap(self, policy: Policy | None, repeatable: bool) -> Callable[[_Sending], Any]:  # noqa: FBT001 - two chains
        def send(sending: _Sending) -> Any:
            return self._begun(sending) if sending.streamed else self._sent(sending)

        if policy is None:
            return send
        return policy.wrap_sync(idempotent(send) if repeatable else send)

    def _sent(self, sending: _Sending) -> Any:
        rules = self._chains.rules
        call = sending.continuation(made_ready(sending.details, rules), sending.request)
        failure = failure_of(call, call.code(), call.trailing_metadata(), rules)
        if failure is not None:
            raise failure
        return call

    def _begun(self, sending: _Sending) -> Any:
        """The stream, as soon as it shows a sign of life; a chain's time-out bounds that, not the stream."""
        rules = self._chains.rules
        details = made_ready(sending.details, rules, sending.stream_timeout, kept=True)
        call, late, left = sending.continuation(details, sending.request), threading.Event(), remaining()

        def too_late() -> None:
            late.set()
            call.cancel()

        timer = threading.Timer(left, too_late) if left is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            call.initial_metadata()
        finally:
            if timer is not None:
                timer.cancel()
        if late.is_set():
            raise DeadlineExceeded("the stream did not begin in the time that it was given", seconds=left)
        failure = None if call.is_active() else failure_of(call, call.code(), call.trailing_metadata(), rules)
        if failure is not None:
            raise failure
        return call


class _Preset:
    """What a fallback answers, as a call that has succeeded."""

    def __init__(self, answer: Any, *, streamed: bool) -> None:
        self._answer, self._answers = answer, iter(answer) if streamed else iter(())

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - a future's
        """The answer."""
        return self._answer

    def __iter__(self) -> Any:
        return self._answers

    def __next__(self) -> Any:
        return next(self._answers)

    def code(self) -> Any:
        """OK."""
        return grpc.StatusCode.OK

    def details(self) -> str:
        """Where it is from."""
        return "answered by a fallback"

    def exception(self, timeout: float | None = None) -> None:
        """None."""

    def initial_metadata(self) -> tuple[()]:
        """None."""
        return ()

    trailing_metadata = initial_metadata

    def done(self) -> bool:
        """It is."""
        return True

    def is_active(self) -> bool:
        """It is not."""
        return False

    cancelled = is_active
    running = is_active
    cancel = is_active

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call it at once."""
        callback(self)


def aio_interceptors(policies: PolicyFor, *, rules: GrpcRules | None = None) -> Sequence[Any]:
    """For `grpc.aio.insecure_channel(..., interceptors=...)`: one for each kind of method, as grpc.aio asks for."""
    chains = _Chains(policies, rules)
    return [_UnaryUnary(chains), _UnaryStream(chains), _StreamUnary(chains), _StreamStream(chains)]


class _Aio:
    """What the four have in common."""

    def __init__(self, chains: _Chains) -> None:
        self._chains = chains

    async def _through(self, sending: _Sending, *, whole: bool) -> Any:
        try:
            return await self._chains.of(sending.details.method, self._wrap, whole=whole)(sending)
        except FailedCall as failed:
            return failed.call

    def _wrap(self, policy: Policy | None, repeatable: bool) -> Callable[[_Sending], Awaitable[Any]]:  # noqa: FBT001
        async def send(sending: _Sending) -> Any:
            return await self._sent(sending)

        if policy is None:
            return send
        return policy.wrap_async(idempotent(send) if repeatable else send)

    async def _sent(self, sending: _Sending) -> Any:
        rules = self._chains.rules
        kept = {"timeout": sending.stream_timeout, "kept": True} if sending.streamed else {}
        details = made_ready(sending.details, rules, **kept)  # type: ignore[arg-type]
        details.metadata = grpc.aio.Metadata(*(details.metadata or ()))
        call = await sending.continuation(details, sending.request)
        try:
            if sending.streamed:
                await call.initial_metadata()
                if not call.done():
                    return call
            code, trailing = await call.code(), await call.trailing_metadata()
        except BaseException:
            call.cancel()
            raise
        failure = failure_of(call, code, trailing, rules)
        if failure is not None:
            raise failure
        return call


class _UnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._through(_Sending(continuation, client_call_details, request), whole=True)


class _StreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._through(_Sending(continuation, client_call_details, request_iterator), whole=False)


class _UnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        whole_time = at_most(client_call_details.timeout)
        sending = _Sending(continuation, client_call_details, request, streamed=True, stream_timeout=whole_time)
        return await self._through(sending, whole=True)


class _StreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        details = made_ready(client_call_details, self._chains.rules)
        details.metadata = grpc.aio.Metadata(*(details.metadata or ()))
        return await continuation(details, request_iterator)
