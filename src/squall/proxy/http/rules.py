"""What the HTTP and gRPC toxics can be told, and which requests they match."""

from __future__ import annotations

import functools
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from squall.errors import InputError
from squall.proxy.refusals import Invalid
from squall.proxy.toxics.attributes import Attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.proxy.http.heads import RequestHead

__all__ = [
    "HTTP_KINDS",
    "AbortRule",
    "DelayRule",
    "GrpcAbortRule",
    "GrpcDelayRule",
    "PatchRule",
    "ReplaceRule",
    "Rule",
    "check_names",
]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_TARGET: Final = re.compile(r"/[!-~]*")
_STATUS_LEAST, _STATUS_MOST = 200, 599
FRAMING_NAMES: Final = frozenset({"content-length", "transfer-encoding"})
"""Headers that say where a message ends: the proxy writes them itself."""


def check_names(headers: Mapping[str, object]) -> None:
    """Raise InputError for headers that cannot be written or would break the message's framing."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise InputError(f"header {name!r}: a name has letters, digits and !#$%&'*+-.^_`|~ only")
        if name.lower() in FRAMING_NAMES:
            raise InputError(f"header {name}: it says where the message ends, so the proxy writes it itself")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InputError(f"header {name}: {value!r} has characters that a header cannot have")


def _headers_ok(headers: Mapping[str, Any] | None) -> None:
    try:
        check_names(headers or {})
    except InputError as error:
        raise Invalid(str(error)) from error


@functools.lru_cache(maxsize=256)
def _glob(pattern: str, *, any_case: bool = False) -> re.Pattern[str]:
    text = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.compile(text, re.DOTALL | (re.IGNORECASE if any_case else 0))


@dataclass(frozen=True)
class Rule(Attributes):
    """Which requests are meant: all that is given must hold; `percent` is 0 to 100, drawn for each request."""

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    percent: float = 100.0

    def check(self) -> None:
        """Raise Invalid for values that no message can have."""
        if not 0 <= self.percent <= 100:  # noqa: PLR2004 - percent
            raise Invalid(f"percent {self.percent} is out of range: 0 to 100 is allowed")
        if not all(isinstance(value, str) for value in self.headers.values()):
            raise Invalid("headers: each value is a text")

    def matches(self, request: RequestHead) -> bool:
        """Whether a request is meant, percent aside."""
        if self.method and self.method.upper() != request.method.decode("latin-1").upper():
            return False
        return self.fits(request)

    def fits(self, request: RequestHead) -> bool:
        """Whether path and headers are as they must be."""
        if self.path and not _glob(self.path).fullmatch(request.path()):
            return False
        for name, wanted in self.headers.items():
            values = request.all(name.lower().encode("latin-1", "replace"))
            if not any(_glob(wanted).fullmatch(value.decode("latin-1")) for value in values):
                return False
        return True


@dataclass(frozen=True)
class DelayRule(Rule):
    """http_delay: milliseconds, and nanoseconds that are added to them."""

    delay: int = 0
    jitter: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0


@dataclass(frozen=True)
class AbortRule(Rule):
    """http_abort: the answer that the proxy gives itself."""

    status: int = 503
    body: str = ""
    response_headers: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise Invalid for values that no message can have."""
        super().check()
        _status_ok(self.status)
        _headers_ok(self.response_headers)


@dataclass(frozen=True)
class ReplaceRule(Rule):
    """http_replace: what is None (or, for the status, 0) stays."""

    nullable = {"new_path": str, "body": str, "set_headers": dict}
    status: int = 0
    new_path: str | None = None
    body: str | None = None
    set_headers: dict[str, str] | None = None

    def check(self) -> None:
        """Raise Invalid for values that no message can have."""
        super().check()
        if self.status:
            _status_ok(self.status)
        if self.new_path is not None and not _TARGET.fullmatch(self.new_path):
            raise Invalid(f"new_path: {self.new_path!r} is not a path: it begins with / and has no spaces")
        _headers_ok(self.set_headers)


@dataclass(frozen=True)
class PatchRule(Rule):
    """http_patch: `body` is a JSON merge patch."""

    nullable = {"body": dict}
    set_headers: dict[str, str] = field(default_factory=dict)
    remove_headers: tuple[str, ...] = ()
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise Invalid for values that no message can have."""
        super().check()
        _headers_ok(self.set_headers)
        _headers_ok(dict.fromkeys(self.remove_headers, ""))
        if not all(isinstance(value, str) for value in self.query.values()):
            raise Invalid("query: each value is a text")


_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?", re.IGNORECASE | re.DOTALL)
_GRPC_STATUS_MOST: Final = 16
_EACH: Final = ("call", "message")


def _calls(rule: GrpcDelayRule | GrpcAbortRule, request: RequestHead) -> bool:
    """Whether a request is a gRPC call that is meant, percent aside."""
    if request.version != b"HTTP/2" or not any(_GRPC.fullmatch(value) for value in request.all(b"content-type")):
        return False
    service, _, method = request.path().removeprefix("/").rpartition("/")
    if rule.service and not _glob(rule.service).fullmatch(service):
        return False
    return not rule.method or _glob(rule.method).fullmatch(method) is not None


@dataclass(frozen=True)
class GrpcDelayRule(DelayRule):
    """grpc_delay: `method` is the call's; `each` is `call` or `message`; `headers` are metadata."""

    service: str = ""
    each: str = "call"

    def check(self) -> None:
        """Raise Invalid for values that no call can have."""
        super().check()
        if self.each not in _EACH:
            raise Invalid(f"each: {self.each!r} is unknown; call and message are allowed")

    def matches(self, request: RequestHead) -> bool:
        """Whether a call is meant, percent aside."""
        return _calls(self, request) and self.fits(request)


@dataclass(frozen=True)
class GrpcAbortRule(Rule):
    """grpc_abort: the status that ends a call, after so many messages of the toxic's direction; 0: before it is made.

    `details` are pairs of a type URL and a value in base64; `trailers` are sent along.
    """

    service: str = ""
    status: int = 14
    message: str = ""
    details: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    after_messages: int = 0

    def check(self) -> None:
        """Raise Invalid for values that no call can have."""
        super().check()
        if not 1 <= self.status <= _GRPC_STATUS_MOST:
            raise Invalid(f"status {self.status} is out of range: 1 to {_GRPC_STATUS_MOST} is allowed")
        if self.after_messages < 0:
            raise Invalid(f"after_messages {self.after_messages} is out of range: 0 is the least")
        for name, value in self.details.items():
            try:
                b64decode(value, validate=True)
            except (ValueError, TypeError):
                raise Invalid(f"details: {name}: {value!r} is not base64") from None
        _headers_ok(self.trailers)

    def matches(self, request: RequestHead) -> bool:
        """Whether a call is meant, percent aside."""
        return _calls(self, request) and self.fits(request)


def _status_ok(status: int) -> None:
    if not _STATUS_LEAST <= status <= _STATUS_MOST:
        raise Invalid(f"status {status} is out of range: {_STATUS_LEAST} to {_STATUS_MOST} is allowed")


HTTP_KINDS: Final[dict[str, Rule]] = {
    "grpc_delay": GrpcDelayRule(), "grpc_abort": GrpcAbortRule(),
    "http_delay": DelayRule(), "http_abort": AbortRule(), "http_replace": ReplaceRule(), "http_patch": PatchRule(),
}  # fmt: skip
"""The HTTP and gRPC toxics by type, each with its defaults."""
