"""A small HTTP client on the standard library's `http.client`, through a policy for each host.

Connections are kept and bounded (`ClientSettings`), every wait is cut to what is left of the deadline, the deadline and the
trace go along in headers, and answers that are failures (5xx, 429) are failures for the policy while the caller gets
them as what they are: answers.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit

from squall_resilience.adapters.connections import Connections, Lease, Place
from squall_resilience.adapters.http_rules import FailedAnswer, HttpRules, NotSent, retry_after_seconds
from squall_resilience.adapters.policies import PolicyFor, Routes
from squall_resilience.client import ClientSettings
from squall_resilience.propagation import outgoing
from squall_resilience.safe import idempotent

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from squall_resilience.policy.chain import Policy

__all__ = ["Answer", "AnswerTooLarge", "CutShort", "HttpClient", "NotSent", "Request"]

BODY_BYTES_MAX = 64 * 1024 * 1024
_PORTS = {"http": 80, "https": 443}


class AnswerTooLarge(http.client.HTTPException):
    """The answer's body is longer than the client takes."""


class CutShort(http.client.IncompleteRead, ConnectionResetError):
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class Request:
    """What is sent, as often as the policy says.

    A GET or HEAD has a hash, by which a fallback finds its last good answer: of the same URL, asked for with the same
    headers. Others have none: an earlier order's answer is no answer to this one.
    """

    method: str
    place: Place
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    repeatable: bool = True
    """Whether sending it twice does no harm."""

    def __hash__(self) -> int:
        if self.method not in {"GET", "HEAD"}:
            raise TypeError(f"{self.method} has no last good answer")
        return hash((self.method, self.place, self.target, self.headers, self.body))


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it was done: any 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - what 2xx means

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is none."""
        return json.loads(self.body)


class HttpClient:
    """Calls services over HTTP; one for a process, safe from any thread, a context manager that closes at its end.

    `policies` says which policy a request goes through: one for all, a mapping of `host:port` or host to policies, or a
    function of the URL; None, or a host that is not in it: straight to the transport.
    """

    def __init__(
        self,
        policies: PolicyFor = None,
        settings: ClientSettings | None = None,
        *,
        rules: HttpRules | None = None,
        context: ssl.SSLContext | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self.settings = settings or ClientSettings()
        self.rules = rules or HttpRules()
        self.connections = Connections(self.settings, context)
        self._body_bytes_max = body_bytes_max
        self._routes: Routes[Callable[[Request], Answer]] = Routes(policies, self._through)

    def configure(self, settings: ClientSettings) -> None:
        """Take other time-outs and pool sizes, for a section of a settings file."""
        self.settings = settings
        self.connections.configure(settings)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        data: Any = None,
    ) -> Answer:
        """Send a request and read the whole answer, whatever its status; `data` is sent as JSON.

        Raises what the policy rejects with (`Rejected`, `DeadlineExceeded`), NotSent when no connection was free, OSError
        for what the network does, http.client.HTTPException for what is no HTTP, ValueError for a URL that is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// URL")
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if data is not None:
            body = json.dumps(data).encode()
            sent.setdefault("content-type", "application/json")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        place = Place(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])
        repeatable = self.rules.may_repeat(method, sent)
        through = self._routes.of(*place, repeatable=repeatable)
        try:
            return through(Request(method.upper(), place, target, tuple(sent.items()), body, repeatable))
        except FailedAnswer as failed:
            return cast("Answer", failed.response)

    def _through(self, policy: Policy | None, *, repeatable: bool) -> Callable[[Request], Answer]:
        if policy is None:
            return self._send

        def send(request: Request) -> Answer:
            return self._send(request, policy.settings.client)

        return policy.wrap_sync(idempotent(send) if repeatable else send)

    def _send(self, request: Request, settings: ClientSettings | None = None) -> Answer:
        answer = self._exchange(request, settings)
        if self.rules.fails(answer.status):
            raise FailedAnswer(answer, answer.status, retry_after_seconds(answer.headers.get("retry-after")))
        return answer

    def _exchange(self, request: Request, settings: ClientSettings | None) -> Answer:
        """One request and its answer; once more where a kept connection turns out to be closed by the other side."""
        lease = self.connections.take(request.place, settings)
        try:
            answer, keep = self._over(lease, request)
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
            self.connections.drop(lease)
            if not (lease.reused and request.repeatable):
                raise
        except BaseException:
            self.connections.drop(lease)
            raise
        else:
            (self.connections.give_back if keep else self.connections.drop)(lease)
            return answer
        return self._exchange_anew(request, settings)

    def _exchange_anew(self, request: Request, settings: ClientSettings | None) -> Answer:
        lease = self.connections.take_new(request.place, settings)
        try:
            answer, keep = self._over(lease, request)
        except BaseException:
            self.connections.drop(lease)
            raise
        (self.connections.give_back if keep else self.connections.drop)(lease)
        return answer

    def _over(self, lease: Lease, request: Request) -> tuple[Answer, bool]:
        connection = lease.connection
        assert connection is not None  # noqa: S101 - `take` has opened it
        given = dict(request.headers)
        headers = {**given, **outgoing(given)}
        connection.request(request.method, request.target, request.body, headers)
        with connection.getresponse() as response:
            body = response.read(self._body_bytes_max + 1)
            if len(body) > self._body_bytes_max:
                raise AnswerTooLarge(f"the answer is longer than {self._body_bytes_max} bytes")
            if response.length:
                raise CutShort(body, response.length)
            keep = not response.will_close and response.isclosed()
            return Answer(response.status, response.msg, body), keep

    def close(self) -> None:
        """Close the connections."""
        self.connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
