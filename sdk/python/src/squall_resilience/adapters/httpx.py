"""httpx through a policy: transports for its clients, sync and async.

    client = httpx.Client(transport=ResilientTransport({"inventory:8083": policy}))

To the chain a call ends with its answer's headers, or with its body where that is short (`HttpRules.body_within`): a slot is
never held by a stream that somebody forgot to close. Answers that are failures (5xx, 429) are failures to the chain and
answers to the caller; errors stay httpx's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx

from squall_resilience.adapters.http_rules import FailedAnswer, HttpRules, Sent
from squall_resilience.adapters.httpx_family import Exchange, limits, timeout
from squall_resilience.adapters.policies import PolicyFor, Routes
from squall_resilience.client import ClientSettings
from squall_resilience.safe import idempotent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from squall_resilience.policy.chain import Policy

__all__ = ["AsyncResilientTransport", "ResilientTransport", "async_client", "client"]


class ResilientTransport(httpx.BaseTransport):
    """Sends each request through the policy of its host; `transport` is what sends it in the end, its own by default."""

    def __init__(
        self,
        policies: PolicyFor,
        transport: httpx.BaseTransport | None = None,
        *,
        settings: ClientSettings | None = None,
        rules: HttpRules | None = None,
    ) -> None:
        self._exchange = Exchange(httpx, settings, rules)
        self._transport = transport or httpx.HTTPTransport(limits=limits(httpx, self._exchange.settings))
        self._routes: Routes[Callable[[Sent[httpx.Request]], httpx.Response]] = Routes(policies, self._through)

    def _through(self, policy: Policy | None, *, repeatable: bool) -> Callable[[Sent[httpx.Request]], httpx.Response]:
        def send(sent: Sent[httpx.Request]) -> httpx.Response:
            return self._send(sent.request, policy)

        if policy is None:
            return send
        return policy.wrap_sync(idempotent(send) if repeatable else send)

    def _send(self, request: httpx.Request, policy: Policy | None) -> httpx.Response:
        exchange = self._exchange
        try:
            response = self._transport.handle_request(exchange.ready(request, policy))
            if not exchange.reads(request, response):
                return response
            body = bytearray()
            try:
                for piece in response.iter_raw():
                    body += piece
                    exchange.too_long(request, len(body))
            finally:
                response.close()
        except httpx.TransportError as error:
            raise exchange.meanings.of(error) from error.__cause__
        answer: httpx.Response = exchange.whole(request, response, bytes(body))
        return answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.BaseTransport; also raises what the policy rejects with."""
        exchange = self._exchange
        through = self._routes.of(*exchange.where(request), repeatable=exchange.may_repeat(request))
        try:
            return through(Sent(request))
        except FailedAnswer as failed:
            return cast("httpx.Response", failed.response)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class AsyncResilientTransport(httpx.AsyncBaseTransport):
    """The same for httpx.AsyncClient, on asyncio and trio."""

    def __init__(
        self,
        policies: PolicyFor,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        settings: ClientSettings | None = None,
        rules: HttpRules | None = None,
    ) -> None:
        self._exchange = Exchange(httpx, settings, rules)
        self._transport = transport or httpx.AsyncHTTPTransport(limits=limits(httpx, self._exchange.settings))
        self._routes: Routes[Callable[[Sent[httpx.Request]], Awaitable[httpx.Response]]] = Routes(
            policies, self._through
        )

    def _through(
        self, policy: Policy | None, *, repeatable: bool
    ) -> Callable[[Sent[httpx.Request]], Awaitable[httpx.Response]]:
        async def send(sent: Sent[httpx.Request]) -> httpx.Response:
            return await self._send(sent.request, policy)

        if policy is None:
            return send
        return policy.wrap_async(idempotent(send) if repeatable else send)

    async def _send(self, request: httpx.Request, policy: Policy | None) -> httpx.Response:
        exchange = self._exchange
        try:
            response = await self._transport.handle_async_request(exchange.ready(request, policy))
            if not exchange.reads(request, response):
                return response
            body = bytearray()
            try:
                async for piece in response.aiter_raw():
                    body += piece
                    exchange.too_long(request, len(body))
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise exchange.meanings.of(error) from error.__cause__
        answer: httpx.Response = exchange.whole(request, response, bytes(body))
        return answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport; also raises what the policy rejects with."""
        exchange = self._exchange
        through = self._routes.of(*exchange.where(request), repeatable=exchange.may_repeat(request))
        try:
            return await through(Sent(request))
        except FailedAnswer as failed:
            return cast("httpx.Response", failed.response)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def client(policies: PolicyFor, settings: ClientSettings | None = None, rules: HttpRules | None = None) -> httpx.Client:
    """A client with this project's time-outs and pool instead of the library's, through a policy for each host."""
    settings = settings or ClientSettings()
    return httpx.Client(
        transport=ResilientTransport(policies, settings=settings, rules=rules), timeout=timeout(httpx, settings)
    )


def async_client(
    policies: PolicyFor, settings: ClientSettings | None = None, rules: HttpRules | None = None
) -> httpx.AsyncClient:
    """The same, async."""
    settings = settings or ClientSettings()
    return httpx.AsyncClient(
        transport=AsyncResilientTransport(policies, settings=settings, rules=rules), timeout=timeout(httpx, settings)
    )
