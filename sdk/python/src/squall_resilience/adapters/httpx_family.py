"""What `httpx` and `httpx2` have in common, written once: both have the same transports, under two names.

The library is handed in; `httpx.py` and `httpx2.py` beside this are its two forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall_resilience.adapters.http_rules import FailedAnswer, HttpRules, Meanings, NotSent, retry_after_seconds
from squall_resilience.client import ClientSettings
from squall_resilience.deadline import at_most
from squall_resilience.propagation import outgoing

if TYPE_CHECKING:
    from squall_resilience.policy.chain import Policy

__all__ = ["Exchange", "limits", "meanings", "timeout"]

FAILED_BODY_BYTES_MAX = 16 * 1024 * 1024
_PORTS = {"http": 80, "https": 443}
_WAITS = {"connect": "connect_timeout", "read": "read_timeout", "write": "write_timeout", "pool": "pool_timeout"}


def meanings(library: Any) -> Meanings:
    """What the library's errors mean."""
    return Meanings(
        (library.PoolTimeout, (NotSent,)),
        (library.ConnectTimeout, (ConnectionRefusedError, TimeoutError)),
        (library.ConnectError, (ConnectionRefusedError,)),
        (library.TimeoutException, (TimeoutError,)),
        (library.NetworkError, (ConnectionResetError,)),
        (library.RemoteProtocolError, (ConnectionResetError,)),
    )


def limits(library: Any, settings: ClientSettings) -> Any:
    """The pool of a transport: in all; the library has no limit for one host, a bulkhead is one."""
    return library.Limits(
        max_connections=settings.connections,
        max_keepalive_connections=settings.connections,
        keepalive_expiry=settings.idle,
    )


def timeout(library: Any, settings: ClientSettings) -> Any:
    """The time-outs of a client."""
    return library.Timeout(**{wait: getattr(settings, name) for wait, name in _WAITS.items()})


class Exchange:
    """One transport's rules: how a request is made ready for an attempt, and what its answer is to the chain."""

    def __init__(self, library: Any, settings: ClientSettings | None, rules: HttpRules | None) -> None:
        self.library = library
        self.settings = settings or ClientSettings()
        self.rules = rules or HttpRules()
        self.meanings = meanings(library)

    def where(self, request: Any) -> tuple[str, str, int]:
        """Scheme, host and port."""
        url = request.url
        return url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0)

    def may_repeat(self, request: Any) -> bool:
        """Whether it may be sent twice: by its method, and by a body that can be read twice."""
        return isinstance(request.stream, self.library.ByteStream) and self.rules.may_repeat(
            request.method, list(request.headers)
        )

    def ready(self, request: Any, policy: Policy | None) -> Any:
        """The request of one attempt: with the time that is left and the trace, and time-outs cut to it.

        The least of what the caller, the client and the deadline allow holds for each wait.
        """
        settings = (policy.settings.client if policy is not None else None) or self.settings
        asked = request.extensions.get("timeout", {})
        waits = {}
        for wait, name in _WAITS.items():
            ours, theirs = getattr(settings, name), asked.get(wait)
            waits[wait] = at_most(ours if theirs is None else min(ours, theirs))
        headers = request.headers.copy()
        headers.update(outgoing(headers))
        return self.library.Request(
            request.method,
            request.url,
            headers=headers,
            stream=request.stream,
            extensions={**request.extensions, "timeout": waits},
        )

    def reads(self, request: Any, response: Any) -> bool:
        """Whether the body is read within the chain."""
        return self.rules.reads(
            response.status_code, response.headers.get("content-length"), bodiless=request.method == "HEAD"
        )

    def whole(self, request: Any, response: Any, body: bytes) -> Any:
        """The answer with its body, still encoded as it came; FailedAnswer when it is a failure."""
        made = self.library.Response(
            response.status_code,
            headers=response.headers,
            stream=self.library.ByteStream(body),
            extensions=response.extensions,
            request=request,
        )
        if self.rules.fails(made.status_code):
            raise FailedAnswer(made, made.status_code, retry_after_seconds(made.headers.get("retry-after")))
        return made

    def too_long(self, request: Any, size: int) -> None:
        """Raises when a failure's body is longer than is kept."""
        if size > FAILED_BODY_BYTES_MAX:
            raise self.library.RemoteProtocolError(
                f"the body of a failed answer is longer than {FAILED_BODY_BYTES_MAX} bytes", request=request
            )
