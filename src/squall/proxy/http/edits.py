"""Changes to messages: pure functions from a head (and a body) to a new one."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_plus

from squall.proxy.http.heads import RequestHead, ResponseHead, with_fields
from squall.proxy.http.rules import PatchRule, ReplaceRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.proxy.http.rules import AbortRule
    from squall.proxy.toxics import Toxic

__all__ = ["CannotPatch", "answer_of", "apply_edits", "change_head", "change_payload", "new_payload", "with_length"]

_KEPT_BY_REPLACE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"trailer"}
)
Head = RequestHead | ResponseHead


class CannotPatch(Exception):  # noqa: N818 - it is counted, not raised to anybody
    """This body is not what the rule can change: it passes as it is, and counts as missed."""


def answer_of(rule: AbortRule, *, method: bytes, close: bool) -> bytes:
    """The whole answer to an aborted request."""
    body = rule.body.encode()
    names = {name.lower() for name in rule.response_headers}
    lines = [f"HTTP/1.1 {rule.status} {_reason(rule.status)}"]
    lines += [f"{name}: {value}" for name, value in rule.response_headers.items()]
    if body and "content-type" not in names:
        lines.append("Content-Type: text/plain; charset=utf-8")
    if rule.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        lines.append(f"Content-Length: {len(body)}")
    else:
        body = b""
    if close and "connection" not in names:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if method == b"HEAD" else head + body


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def change_head(head: Head, rule: ReplaceRule | PatchRule) -> Head:
    """The head as this rule makes it; the body's length is not its business."""
    if isinstance(rule, ReplaceRule):
        if rule.status and isinstance(head, ResponseHead):
            head = replace(head, status=rule.status, reason=_reason(rule.status).encode())
        if rule.new_path is not None and isinstance(head, RequestHead):
            head = replace(head, target=rule.new_path.encode("latin-1"))
        if rule.set_headers is not None:
            kept = tuple(item for item in head.fields if item[0].lower() in _KEPT_BY_REPLACE)
            head = replace(head, fields=with_fields(kept, _encoded(rule.set_headers)))
        return head
    changes: dict[bytes, bytes | None] = {name.encode("latin-1"): None for name in rule.remove_headers}
    head = replace(head, fields=with_fields(head.fields, {**changes, **_encoded(rule.set_headers)}))
    if rule.query and isinstance(head, RequestHead):
        head = replace(head, target=_with_query(head.target, rule.query))
    return head


def apply_edits(
    edits: list[tuple[Toxic, ReplaceRule | PatchRule]], head: Head, collected: bytes | None
) -> tuple[Head, bytes | None]:
    """The head and, where there is one, the new body, as these rules make them; one that cannot counts as missed."""
    payload = None
    for toxic, rule in edits:
        try:
            if isinstance(rule, PatchRule) and rule.body is not None:
                payload = change_payload(rule, head, payload if payload is not None else collected or b"")
            elif new_payload(rule) is not None:
                payload = new_payload(rule)
        except CannotPatch:
            toxic.hits.missed += 1
            continue
        head = change_head(head, rule)
    return head, payload


def _encoded(headers: Mapping[str, str]) -> dict[bytes, bytes | None]:
    return {name.encode("latin-1"): value.encode("latin-1") for name, value in headers.items()}


def _with_query(target: bytes, changes: Mapping[str, str]) -> bytes:
    """The target with parameters set: where they stand, else at the end; the others are left as they were written."""
    path, _, query = target.partition(b"?")
    left = dict(changes)
    parts: list[bytes] = []
    for part in query.split(b"&") if query else []:
        name = unquote_plus(part.partition(b"=")[0].decode("latin-1"))
        if name not in changes:
            parts.append(part)
        elif name in left:
            parts.append(_parameter(name, left.pop(name)))
    parts += [_parameter(name, value) for name, value in left.items()]
    return path + b"?" + b"&".join(parts)


def _parameter(name: str, value: str) -> bytes:
    return f"{quote(name, safe='')}={quote(value, safe='')}".encode()


def new_payload(rule: ReplaceRule | PatchRule) -> bytes | None:
    """The body that this rule puts in the place of any other, if it does."""
    return _body(rule.body) if isinstance(rule, ReplaceRule) and rule.body is not None else None


@functools.lru_cache(maxsize=8)
def _body(text: str) -> bytes:
    """The same bytes each time: thousands of messages may wait with them."""
    return text.encode()


def change_payload(rule: PatchRule, head: Head, payload: bytes) -> bytes:
    """A JSON body with the rule's merge patch applied; CannotPatch."""
    if [coding for coding in head.tokens(b"content-encoding") if coding != b"identity"]:
        raise CannotPatch
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        raise CannotPatch from None
    return json.dumps(_merged(document, rule.body), separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def with_length(head: Head, length: int | None) -> Head:
    """The head for a body of this many bytes in one piece; None for no body and no length at all."""
    changes: dict[bytes, bytes | None] = {b"Transfer-Encoding": None, b"Trailer": None}
    changes[b"Content-Length"] = None if length is None else b"%d" % length
    return replace(head, fields=with_fields(head.fields, changes))
