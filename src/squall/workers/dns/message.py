"""As much of a DNS message as a fault needs: the header and the one question, and answers made from them.

Everything else is passed on byte for byte. RFC 1035 section 4; RFC 6891 for EDNS.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AAAA", "RCODES", "A", "Query", "addresses", "error", "read_query"]

A, AAAA = 1, 28
RCODES = {"servfail": 2, "nxdomain": 3, "refused": 5}
_HEADER = struct.Struct(">HHHHHH")
_IN, _OPT = 1, 41
_RESPONSE, _OPCODE, _RECURSION_WANTED, _RECURSION_HAD, _CHECKING_OFF = 0x8000, 0x7800, 0x0100, 0x0080, 0x0010
_UDP_SIZE, _DNSSEC_OK = 1232, 0x8000
_NAME_BYTES_MOST = 255


class Query(NamedTuple):
    """A standard query with one question."""

    number: int
    flags: int
    name: str
    """In lower case, without the dot at its end; "" for the root."""
    type: int
    question: bytes
    """As it was sent: who asks compares it, upper and lower case included."""
    edns: bool
    dnssec_ok: bool


def read_query(data: bytes) -> Query | None:
    """The query in a message; None for anything else, which is somebody else's to answer."""
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, more = _HEADER.unpack_from(data)
    if flags & (_RESPONSE | _OPCODE) or (questions, answers, authorities) != (1, 0, 0):
        return None
    read = _name(data, _HEADER.size)
    if read is None or len(data) < read[1] + 4:
        return None
    name, end = read
    type_, class_ = struct.unpack_from(">HH", data, end)
    if class_ != _IN:
        return None
    end += 4
    edns = more > 0 and len(data) >= end + 11 and data[end : end + 3] == b"\0" + struct.pack(">H", _OPT)
    dnssec_ok = edns and bool(struct.unpack_from(">H", data, end + 7)[0] & _DNSSEC_OK)
    return Query(number, flags, name, type_, data[_HEADER.size : end], edns, dnssec_ok)


def _name(data: bytes, at: int) -> tuple[str, int] | None:
    """The name that begins there, and where it ends; None for one that is cut off, too long or compressed."""
    labels: list[str] = []
    begin = at
    while at < len(data) and at - begin < _NAME_BYTES_MOST:
        length = data[at]
        if length == 0:
            return ".".join(labels).lower(), at + 1
        if length > 63 or at + 1 + length > len(data):  # noqa: PLR2004 - RFC 1035, 2.3.4
            return None
        labels.append(data[at + 1 : at + 1 + length].decode("ascii", "backslashreplace"))
        at += 1 + length
    return None


def error(query: Query, rcode: int) -> bytes:
    """An answer that holds no records but this code."""
    return _answer(query, rcode, b"", 0)


def addresses(query: Query, found: Sequence[str], ttl_s: int) -> bytes:
    """An answer with these addresses, those of the kind that was asked for; none of that kind: the name has no such record."""
    family = {A: socket.AF_INET, AAAA: socket.AF_INET6}[query.type]
    packed = [socket.inet_pton(family, text) for text in found if (":" in text) == (query.type == AAAA)]
    head = b"\xc0\x0c" + struct.pack(">HHI", query.type, _IN, ttl_s)  # the name is that of the question
    return _answer(query, 0, b"".join(head + struct.pack(">H", len(one)) + one for one in packed), len(packed))


def _answer(query: Query, rcode: int, records: bytes, count: int) -> bytes:
    kept = query.flags & (_RECURSION_WANTED | _CHECKING_OFF)
    header = _HEADER.pack(query.number, _RESPONSE | _RECURSION_HAD | kept | rcode, 1, count, 0, int(query.edns))
    flags = _DNSSEC_OK if query.dnssec_ok else 0
    edns = b"\0" + struct.pack(">HHHHH", _OPT, _UDP_SIZE, 0, flags, 0) if query.edns else b""
    return header + query.question + records + edns
