"""Faults on HTTP requests and responses that pass the proxy, by a route or led there by the kernel; and in the handler."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from squall.faults.connections import ConnectionFault
from squall.faults.frozen import FrozenDict, FrozenMapping, JsonPatch, Rows
from squall.faults.handlers import InHandler
from squall.units import Duration, Ratio, Within

__all__ = ["Abort", "Degrade", "Delay", "HttpFault", "Patch", "Replace"]

_TARGETS = ("route", "process", "cgroup", "netns")
_INSIDE_TOO = (*_TARGETS, "middleware")
"""What a middleware in the service can do as well: it sees requests, and answers in the handler's place."""
_HUNDRED = Ratio.parse("100%")
Headers = FrozenMapping[Annotated[str, Field(min_length=1, max_length=256)], str]
Status = Annotated[int, Field(ge=200, le=599)]


class HttpFault(ConnectionFault):
    """Which requests are hit: all conditions that are given must hold."""

    method: Annotated[str, Field(pattern=r"^[A-Za-z]+$")] | None = None
    """The request's method: letters, in any case."""
    path: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """The request's path without its query; `*` stands for any characters ("/orders/*")."""
    headers: Headers = FrozenDict()
    """Request headers that must be there; a value may hold `*`."""
    percent: Ratio = _HUNDRED
    """The share of matching requests that are hit; drawn for each request from the experiment's seed."""


class Delay(HttpFault, type="http.delay", targets=_INSIDE_TOO):
    """Matching requests reach the service late, or (`on: response`) its answers come back late."""

    delay: Annotated[Duration, Within("0s", "1h")]
    """How late."""
    jitter: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """The delay is drawn evenly from delay - jitter to delay + jitter, never below zero."""
    on: Literal["request", "response"] = "request"
    """What is late: the request on its way to the service, or the response on its way back."""


class Abort(HttpFault, type="http.abort", targets=_INSIDE_TOO):
    """Matching requests are answered with an error by the proxy, or by the middleware in the service, and never reach its handlers."""

    status: Status = 503
    """The answer's status."""
    body: Annotated[str, Field(max_length=1_048_576)] = ""
    """The answer's body, as UTF-8."""
    response_headers: Headers = FrozenDict()
    """Headers of the answer, for example Retry-After."""


class _Rewrite(HttpFault):
    on: Literal["request", "response"]
    """What is changed: the request on its way to the service, or the response on its way back."""

    @model_validator(mode="after")
    def _right_side(self) -> Self:
        status, new_path = getattr(self, "status", None), getattr(self, "new_path", None)
        if self.on == "request" and status is not None:
            raise ValueError("a request has no status: say `on: response`")
        if self.on == "response" and new_path is not None:
            raise ValueError("a response has no path: say `on: request`")
        return self


class Replace(_Rewrite, type="http.replace", targets=_TARGETS):
    """Parts of matching messages are replaced whole; what is not named stays as it is."""

    status: Status | None = None
    """The response's new status."""
    new_path: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=2048)] | None = None
    """The request's new path and query, beginning with `/`."""
    body: Annotated[str, Field(max_length=1_048_576)] | None = None
    """The whole new body, as UTF-8."""
    set_headers: Headers | None = None
    """All headers but those that frame the message (Host, Content-Length, Transfer-Encoding, Connection) are replaced by these."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.status is None and self.new_path is None and self.body is None and self.set_headers is None:
            raise ValueError("give at least one of `status`, `newPath`, `body`, `setHeaders`")
        return self


class Patch(_Rewrite, type="http.patch", targets=_TARGETS):
    """Parts of matching messages are changed in place."""

    set_headers: Headers = FrozenDict()
    """Headers that are set, replacing those of the same name."""
    remove_headers: Rows[Annotated[str, Field(min_length=1, max_length=256)]] = ()
    """Headers that are taken away."""
    query: FrozenMapping[str, str] = FrozenDict()
    """Query parameters of a request that are set."""
    body: JsonPatch | None = None
    """A JSON merge patch (RFC 7396) for a JSON body; a body that is not JSON passes unchanged and counts as a miss."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not (self.set_headers or self.remove_headers or self.query or self.body is not None):
            raise ValueError("give at least one of `setHeaders`, `removeHeaders`, `query`, `body`")
        if self.on == "response" and self.query:
            raise ValueError("a response has no query: say `on: request`")
        return self


class Degrade(InHandler, type="http.degrade", targets=("process",)):
    """Each request is handled late: the service itself seems slow, whoever calls it and however.

    In Go it is a busy wait in the kernel, which costs a CPU for as long and is meant for small times; in Python the
    handler sleeps (an asynchronous one lets others run meanwhile).
    """

    delay: Annotated[Duration, Within("1us", "1m")]
    """How late, at the function's entry."""
