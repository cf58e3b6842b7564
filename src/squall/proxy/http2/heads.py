"""Between fields of HTTP/2 and the heads that rules match and change."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from squall.proxy.http.edits import apply_edits, with_length
from squall.proxy.http.heads import RequestHead, ResponseHead
from squall.proxy.http2.hpack import NeverIndexed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.proxy.http.rules import PatchRule, ReplaceRule
    from squall.proxy.http2.hpack import Field, Fields
    from squall.proxy.toxics import Toxic

    Edits = list[tuple[Toxic, ReplaceRule | PatchRule]]

__all__ = ["edited", "fields_of_answer", "is_grpc", "is_interim", "request_of", "response_of", "without_expectation"]

VERSION: Final = b"HTTP/2"
_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host"}
)
"""Fields that HTTP/2 has not; Host is `:authority`."""
_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?", re.IGNORECASE | re.DOTALL)
_STATUS: Final = re.compile(rb"[1-5][0-9][0-9]")
_BODYLESS: Final = (204, 304)


def request_of(fields: Fields) -> RequestHead | None:
    """The head of a request; None for fields that are none."""
    pseudo = {name: value for name, value in fields if name[:1] == b":"}
    method, authority = pseudo.get(b":method"), pseudo.get(b":authority")
    target = pseudo.get(b":path") or authority
    if not method or not target:
        return None
    rest = tuple((name, value) for name, value in fields if name[:1] != b":")
    if authority is not None and not any(name == b"host" for name, _ in rest):
        rest = ((b"host", authority), *rest)
    return RequestHead(VERSION, rest, method, target)


def response_of(fields: Fields) -> ResponseHead | None:
    """The head of a response, interim ones included; None for fields that are none."""
    status = next((value for name, value in fields if name == b":status"), b"")
    if not _STATUS.fullmatch(status):
        return None
    rest = tuple((name, value) for name, value in fields if name[:1] != b":")
    return ResponseHead(VERSION, rest, int(status), b"")


def is_interim(fields: Fields) -> bool:
    """Whether a response is still to come after these: 1xx."""
    return any(name == b":status" and value[:1] == b"1" for name, value in fields)


def is_grpc(head: RequestHead | ResponseHead) -> bool:
    """Whether it is gRPC's."""
    return any(_GRPC.fullmatch(value) for value in head.all(b"content-type"))


def fields_of_answer(answer: bytes) -> tuple[Fields, bytes]:
    """What HTTP/1.1 would answer, as fields and a body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    pairs = (line.partition(b": ") for line in lines)
    return [(b":status", first.split(b" ")[1]), *_ours((name, value) for name, _, value in pairs)], body


def edited(
    fields: Fields, head: RequestHead | ResponseHead, edits: Edits, body: bytes | None
) -> tuple[Fields, bytes | None]:
    """The fields, and the new body if there is one, as these rules make them; `body` is what was collected, if anything."""
    new, payload = apply_edits(edits, head, body)
    if isinstance(new, ResponseHead) and isinstance(head, ResponseHead) and new.status != head.status:
        no_body = new.status in _BODYLESS or (head.status in _BODYLESS and payload is None)
        payload = b"" if no_body else payload
    if payload is not None:
        new = with_length(new, None if isinstance(new, ResponseHead) and new.status in _BODYLESS else len(payload))
    return _fields(fields, new), payload


def _fields(before: Fields, head: RequestHead | ResponseHead) -> Fields:
    """The pseudo fields, changed where they must be, and the head's own."""
    pseudo: Fields = []
    for field in before:
        name = field[0]
        if name == b":status" and isinstance(head, ResponseHead):
            pseudo.append((name, b"%d" % head.status))
        elif name == b":path" and isinstance(head, RequestHead):
            pseudo.append((name, head.target))
        elif name == b":authority" and isinstance(head, RequestHead):
            pseudo.append((name, next(iter(head.all(b"host")), field[1])))
        elif name[:1] == b":":
            pseudo.append(field)
    secret = {field for field in before if isinstance(field, NeverIndexed)}
    return pseudo + [NeverIndexed(field) if field in secret else field for field in _ours(head.fields)]


def _ours(fields: Iterable[Field]) -> Fields:
    found = [(name.lower(), value) for name, value in fields]
    return [field for field in found if field[0] not in _OF_THE_CONNECTION]


def without_expectation(head: RequestHead) -> RequestHead:
    """The head as it goes on when the proxy has asked for the body itself."""
    return replace(head, fields=tuple(field for field in head.fields if field[0] != b"expect"))
