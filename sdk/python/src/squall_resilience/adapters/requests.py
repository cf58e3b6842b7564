"""requests through a policy: a transport adapter for its sessions.

    session = requests.Session()
    session.mount("http://", ResilientAdapter({"inventory:8083": policy}))

The whole answer, body included, is one call to the chain, unless it is asked for with `stream=True`: then the call ends with its
headers. Answers that are failures (5xx, 429) are failures to the chain and answers to the caller; errors stay requests' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError, ReadTimeoutError

from squall_resilience.adapters.http_rules import FailedAnswer, HttpRules, Meanings, retry_after_seconds
from squall_resilience.adapters.policies import PolicyFor, Routes
from squall_resilience.client import ClientSettings
from squall_resilience.deadline import at_most
from squall_resilience.propagation import outgoing
from squall_resilience.safe import idempotent

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response

    from squall_resilience.policy.chain import Policy

__all__ = ["ResilientAdapter", "session"]

MEANINGS = Meanings(
    (requests.exceptions.ConnectTimeout, (ConnectionRefusedError, TimeoutError)),
    (requests.exceptions.Timeout, (TimeoutError,)),
    (requests.exceptions.ConnectionError, (ConnectionResetError,)),
    (requests.exceptions.ChunkedEncodingError, (ConnectionResetError,)),
)
REFUSED = Meanings((requests.exceptions.ConnectionError, (ConnectionRefusedError,)))
LATE = Meanings((requests.exceptions.RequestException, (TimeoutError,)))
_PORTS = {"http": 80, "https": 443}


@dataclass
class _Sending:
    """What an adapter is asked to send; without a hash, see `Sent`."""

    request: PreparedRequest
    stream: bool
    timeout: Any
    options: dict[str, Any]


class ResilientAdapter(HTTPAdapter):
    """Sends each request through the policy of its host; further arguments are HTTPAdapter's."""

    def __init__(
        self,
        policies: PolicyFor,
        *,
        settings: ClientSettings | None = None,
        rules: HttpRules | None = None,
        **options: Any,
    ) -> None:
        self._settings = settings or ClientSettings()
        self._rules = rules or HttpRules()
        self._routes: Routes[Callable[[_Sending], Response]] = Routes(policies, self._through)
        options.setdefault("pool_connections", self._settings.connections)
        options.setdefault("pool_maxsize", self._settings.per_host)
        super().__init__(**options)

    def _through(self, policy: Policy | None, *, repeatable: bool) -> Callable[[_Sending], Response]:
        def send(sending: _Sending) -> Response:
            return self._send(sending, policy)

        if policy is None:
            return send
        return policy.wrap_sync(idempotent(send) if repeatable else send)

    def send(  # type: ignore[override,unused-ignore]
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - the base's own
        timeout: Any = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """See HTTPAdapter; also raises what the policy rejects with."""
        parts = urlsplit(request.url or "")
        whole = request.body is None or isinstance(request.body, (bytes, str))
        repeatable = whole and self._rules.may_repeat(request.method or "", list(request.headers))
        port = parts.port or _PORTS.get(parts.scheme, 0)
        through = self._routes.of(parts.scheme, parts.hostname or "", port, repeatable=repeatable)
        options = {"verify": verify, "cert": cert, "proxies": proxies}
        try:
            return through(_Sending(request, stream, timeout, options))
        except FailedAnswer as failed:
            return cast("Response", failed.response)

    def _send(self, sending: _Sending, policy: Policy | None) -> Response:
        settings = (policy.settings.client if policy is not None else None) or self._settings
        request = sending.request.copy()
        request.headers.update(outgoing(request.headers))
        try:
            response = super().send(
                request, stream=sending.stream, timeout=_waits(sending.timeout, settings), **sending.options
            )
            status = response.status_code
            if not sending.stream or self._rules.fails(status):
                _ = response.content  # reads it, and gives the connection back
        except requests.exceptions.RequestException as error:
            raise _meanings(error).of(error) from error.__cause__
        if self._rules.fails(status):
            raise FailedAnswer(response, status, retry_after_seconds(response.headers.get("retry-after")))
        return response


def _waits(asked: Any, settings: ClientSettings) -> tuple[float | None, float | None]:
    """Seconds to connect and between two pieces of the answer: those asked for, else ours, cut to what is left."""
    if asked is None:
        asked = settings.connect_timeout, settings.read_timeout
    elif not isinstance(asked, tuple):
        asked = asked, asked
    connect, read = (at_most(each) for each in asked)
    if connect == 0.0 or read == 0.0:
        raise requests.exceptions.Timeout("the deadline has passed")
    return connect, read


def _meanings(error: Exception) -> Meanings:
    """What a ConnectionError of requests is stands in what it wraps of urllib3's."""
    inner = error.args[0] if error.args else None
    inner = getattr(inner, "reason", inner)
    if isinstance(inner, NewConnectionError):
        return REFUSED
    return LATE if isinstance(inner, ReadTimeoutError) else MEANINGS


def session(
    policies: PolicyFor, settings: ClientSettings | None = None, rules: HttpRules | None = None
) -> requests.Session:
    """A session all of whose requests go through a policy for each host, with this project's time-outs by default."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, ResilientAdapter(policies, settings=settings, rules=rules))
    return made
