"""What gRPC puts into HTTP/2: where its messages begin and end, and the trailers that end a call."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.proxy.http.rules import GrpcAbortRule
    from squall.proxy.http2.hpack import Fields

__all__ = ["Messages", "status_bytes", "trailers_of"]

_PREFIX_BYTES: Final = 5
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Messages:
    """Follows the length-prefixed messages of one direction of a call; `seen` counts those that have come whole."""

    def __init__(self) -> None:
        self.seen = 0
        self._prefix = b""
        self._left = 0

    def scan(self, data: bytes) -> tuple[int, list[int]]:
        """How many messages begin in the next bytes, and where in them messages end."""
        at, size, begun = 0, len(data), 0
        ends: list[int] = []
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                if not self._prefix:
                    begun += 1
                step = _PREFIX_BYTES - len(self._prefix)
                self._prefix += data[at : at + step]
                at = min(size, at + step)
                if len(self._prefix) < _PREFIX_BYTES:
                    break
                self._left = int.from_bytes(self._prefix[1:])
                self._prefix = b""
            if not self._left and not self._prefix:
                ends.append(at)
        self.seen += len(ends)
        return begun, ends


def trailers_of(rule: GrpcAbortRule) -> Fields:
    """The trailers that say this status."""
    fields = [(b"grpc-status", b"%d" % rule.status)]
    if rule.message:
        fields.append((b"grpc-message", quote(rule.message, safe=_PRINTABLE).encode()))
    if rule.details:
        packed = b64encode(status_bytes(rule.status, rule.message, rule.details)).rstrip(b"=")
        fields.append((b"grpc-status-details-bin", packed))
    return fields + [(name.lower().encode(), value.encode("latin-1")) for name, value in rule.trailers.items()]


def status_bytes(code: int, message: str, details: Mapping[str, str]) -> bytes:
    """A google.rpc.Status: its code, its message, and details as type URLs with values in base64."""
    parts = [b"\x08", _varint(code), _text(2, message.encode())]
    parts += [
        _text(3, _text(1, url.encode()) + _text(2, b64decode(value, validate=True))) for url, value in details.items()
    ]
    return b"".join(parts)


def _text(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(value)) + value if value else b""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
