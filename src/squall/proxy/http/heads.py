"""The head of a message: read strictly, kept as it came, written anew only when it is changed (RFC 9112).

What is not exactly HTTP/1.x, or is framed in a way that two readers could see differently, is NotHttp: the proxy then
takes its hands off the stream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "HEAD_MOST",
    "Framing",
    "NotHttp",
    "RequestHead",
    "ResponseHead",
    "read_request",
    "read_response",
    "request_may_begin",
    "with_fields",
]

HEAD_MOST: Final = 1 << 16
"""A head longer than this is not followed."""

Fields = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_METHOD = rb"[A-Z][A-Z0-9_\-]{0,31}"
_REQUEST_LINE: Final = re.compile(rb"(%s) ([!-~\x80-\xff]+) (HTTP/1\.[01])" % _METHOD)
_BEGINNING: Final = re.compile(rb"\r|%s(?: [!-~\x80-\xff]*(?: [HTP/1.0]{0,8}\r?)?)?" % _METHOD)
_STATUS_LINE: Final = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_FIELD: Final = re.compile(rb"(%s):[ \t]*([\t -~\x80-\xff]*?)[ \t]*" % _TOKEN)
_AUTHORITY: Final = re.compile(rb"^[A-Za-z][A-Za-z0-9+.\-]*://[^/?]*")
_FRAMING: Final = frozenset({b"transfer-encoding", b"content-length"})
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_NO_CONTENT, _NOT_MODIFIED = 204, 304


class NotHttp(Exception):  # noqa: N818 - it is a finding about a stream, not something that went wrong
    """This stream is not HTTP/1.x that can be followed safely."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How long a message's body is: `none`, `length` bytes, `chunked`, or `close` (until the connection ends)."""

    kind: Literal["none", "length", "chunked", "close"]
    length: int = 0


@dataclass(frozen=True, slots=True)
class _Head:
    version: bytes
    fields: Fields

    def all(self, name: bytes) -> list[bytes]:
        """The values of every field of this name (given in lower case)."""
        return [value for field, value in self.fields if field.lower() == name]

    def tokens(self, name: bytes) -> list[bytes]:
        """The comma-separated items of every field of this name, in lower case."""
        return [item.strip().lower() for value in self.all(name) for item in value.split(b",") if item.strip()]

    def keeps_alive(self) -> bool:
        """Whether the connection goes on after this message."""
        said = self.tokens(b"connection")
        return b"close" not in said and (self.version == b"HTTP/1.1" or b"keep-alive" in said)

    def _declared(self) -> Framing | None:
        """The framing that the fields declare, if any; NotHttp when it is ambiguous."""
        if _FRAMING.isdisjoint([name.lower() for name, _ in self.fields]):
            return None
        codings, lengths = self.tokens(b"transfer-encoding"), set(self.all(b"content-length"))
        if codings:
            if codings != [b"chunked"] or lengths or self.version != b"HTTP/1.1":
                raise NotHttp
            return Framing("chunked")
        if lengths:
            if len(lengths) > 1 or not _LENGTH.fullmatch(next(iter(lengths))):
                raise NotHttp
            length = int(next(iter(lengths)))
            return Framing("length", length) if length else Framing("none")
        return None

    def _field_lines(self) -> bytes:
        return b"".join(b"%s: %s\r\n" % field for field in self.fields) + b"\r\n"


@dataclass(frozen=True, slots=True)
class RequestHead(_Head):
    """A request line and its fields."""

    method: bytes
    target: bytes

    def framing(self) -> Framing:
        """How long the body is."""
        return self._declared() or Framing("none")

    def path(self) -> str:
        """The target's path without its query, also of an absolute-form target."""
        target = self.target if self.target.startswith(b"/") else _AUTHORITY.sub(b"", self.target)
        return target.partition(b"?")[0].decode("latin-1") or "/"

    def to_bytes(self) -> bytes:
        """The head as it is sent."""
        return b"%s %s %s\r\n" % (self.method, self.target, self.version) + self._field_lines()


@dataclass(frozen=True, slots=True)
class ResponseHead(_Head):
    """A status line and its fields."""

    status: int
    reason: bytes

    def framing(self, method: bytes) -> Framing:
        """How long the body is, in answer to a request with this method."""
        if method == b"HEAD" or self.status in (_NO_CONTENT, _NOT_MODIFIED) or self.status < 200:  # noqa: PLR2004 - 1xx
            return Framing("none")
        return self._declared() or (Framing("none") if self.all(b"content-length") else Framing("close"))

    def to_bytes(self) -> bytes:
        """The head as it is sent."""
        return b"%s %d %s\r\n" % (self.version, self.status, self.reason) + self._field_lines()


def request_may_begin(data: bytes) -> bool:
    """Whether these bytes may be the beginning of a request's head."""
    line, ended, _ = data.partition(b"\r\n")
    if ended:
        return not line or _REQUEST_LINE.fullmatch(line) is not None
    return _BEGINNING.fullmatch(line) is not None


def read_request(raw: bytes) -> RequestHead:
    """A request's head, its empty line included; NotHttp."""
    line, fields = _split(raw)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise NotHttp
    head = RequestHead(match[3], fields, match[1], match[2])
    head.framing()
    return head


def read_response(raw: bytes) -> ResponseHead:
    """A response's head, its empty line included; NotHttp."""
    line, fields = _split(raw)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise NotHttp
    return ResponseHead(match[1], fields, int(match[2]), match[3] or b"")


def _split(raw: bytes) -> tuple[bytes, Fields]:
    line, *rest = raw[:-4].split(b"\r\n")
    fields = []
    for text in rest:
        match = _FIELD.fullmatch(text)
        if match is None:
            raise NotHttp
        fields.append((match[1], match[2]))
    return line, tuple(fields)


def with_fields(fields: Fields, changes: Mapping[bytes, bytes | None]) -> Fields:
    """Fields with some set (in the place of the first of that name, else at the end) or, with None, taken away."""
    left = {name.lower(): (name, value) for name, value in changes.items()}
    result: list[tuple[bytes, bytes]] = []
    done: set[bytes] = set()
    for name, value in fields:
        low = name.lower()
        if low not in left:
            result.append((name, value))
        elif low not in done:
            done.add(low)
            new = left[low][1]
            if new is not None:
                result.append((name, new))
    result += [(name, value) for low, (name, value) in left.items() if low not in done and value is not None]
    return tuple(result)
