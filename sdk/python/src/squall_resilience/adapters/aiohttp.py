"""aiohttp through a policy: a middleware for its client sessions.

    session = aiohttp.ClientSession(middlewares=(Resilient({"inventory:8083": policy}),))

To the chain a call ends with its answer's headers, or with its body where that is short (`HttpRules.body_within`). Answers
that are failures (5xx, 429) are failures to the chain and answers to the caller; errors stay aiohttp's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp import hdrs, payload

from squall_resilience.adapters.http_rules import FailedAnswer, HttpRules, Meanings, Sent, retry_after_seconds
from squall_resilience.adapters.policies import PolicyFor, Routes
from squall_resilience.client import ClientSettings
from squall_resilience.propagation import outgoing
from squall_resilience.safe import idempotent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from squall_resilience.policy.chain import Policy

    Send = Callable[[Sent[tuple[ClientRequest, ClientHandlerType]]], Awaitable[ClientResponse]]

__all__ = ["Resilient", "session"]

MEANINGS = Meanings(
    (aiohttp.ClientConnectorError, (ConnectionRefusedError,)),
    (aiohttp.ConnectionTimeoutError, (ConnectionRefusedError, TimeoutError)),
    (aiohttp.ServerTimeoutError, (TimeoutError,)),
    (aiohttp.ClientConnectionError, (ConnectionResetError,)),
    (aiohttp.ClientPayloadError, (ConnectionResetError,)),
)


class Resilient:
    """A client middleware: sends each request through the policy of its host."""

    def __init__(self, policies: PolicyFor, *, rules: HttpRules | None = None) -> None:
        self._rules = rules or HttpRules()
        self._routes: Routes[Send] = Routes(policies, self._through)

    def _through(self, policy: Policy | None, *, repeatable: bool) -> Send:
        async def send(sent: Sent[tuple[ClientRequest, ClientHandlerType]]) -> ClientResponse:
            return await self._send(*sent.request)

        if policy is None:
            return send
        return policy.wrap_async(idempotent(send) if repeatable else send)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """See aiohttp's client middlewares; also raises what the policy rejects with."""
        url = request.url
        repeatable = _is_whole(request) and self._rules.may_repeat(request.method, list(request.headers))
        through = self._routes.of(url.scheme, url.host or "", url.port or 0, repeatable=repeatable)
        try:
            return await through(Sent((request, handler)))
        except FailedAnswer as failed:
            return cast("ClientResponse", failed.response)

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        for name, value in outgoing(request.headers).items():
            request.headers[name] = value
        try:
            response = await handler(request)
            status = response.status
            if self._rules.reads(
                status, response.headers.get(hdrs.CONTENT_LENGTH), bodiless=request.method == hdrs.METH_HEAD
            ):
                await response.read()
        except aiohttp.ClientError as error:
            raise MEANINGS.of(error) from error.__cause__
        if self._rules.fails(status):
            raise FailedAnswer(response, status, retry_after_seconds(response.headers.get(hdrs.RETRY_AFTER)))
        return response


def _is_whole(request: ClientRequest) -> bool:
    """Whether its body can be sent twice."""
    body = request.body
    return not body or isinstance(body, (bytes, bytearray, payload.BytesPayload))


def session(
    policies: PolicyFor, settings: ClientSettings | None = None, rules: HttpRules | None = None
) -> aiohttp.ClientSession:
    """A session with this project's time-outs and pool instead of the library's; call it where the loop runs."""
    settings = settings or ClientSettings()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=settings.connections, limit_per_host=settings.per_host, keepalive_timeout=settings.idle
        ),
        timeout=aiohttp.ClientTimeout(
            total=None,
            connect=settings.pool_timeout + settings.connect_timeout,
            sock_connect=settings.connect_timeout,
            sock_read=settings.read_timeout,
        ),
        middlewares=(Resilient(policies, rules=rules),),
    )
