"""Frames as they stand on the wire (RFC 9113, sections 4 and 6): numbers, and the ones that the proxy writes itself."""

from __future__ import annotations

import struct
from typing import Final

from squall.proxy.http.heads import NotHttp

__all__ = [
    "FRAME_BYTES_MOST",
    "HEAD_BYTES",
    "PREFACE",
    "content_of",
    "frame",
    "headers_frames",
    "is_settings",
    "read_frame",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_BYTES_MOST: Final = 1 << 16
"""Peers are told so: a frame is in hand whole before it goes on."""
SMALLEST_FRAME_BYTES_MOST: Final = 1 << 14
"""What every peer takes."""
STREAM_MOST: Final = (1 << 31) - 1
WINDOW_MOST: Final = (1 << 31) - 1
DEFAULT_WINDOW: Final = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE: Final = 0x10

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5

NO_ERROR: Final = 0
REFUSED_STREAM: Final = 7
CANCEL: Final = 8

_HEAD: Final = struct.Struct(">HBBBI")
_NUMBER: Final = struct.Struct(">I")
_SETTING: Final = struct.Struct(">HI")
_SETTINGS_KNOWN_AT: Final = 3
_SETTINGS_HEAD: Final = bytes((SETTINGS, 0, 0, 0, 0, 0))


def read_frame(data: bytes, at: int) -> tuple[int, int, int, int]:
    """The length, type, flags and stream of the frame whose head stands here."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 8 | low, kind, flags, stream & STREAM_MOST


def is_settings(data: bytes) -> bool:
    """Whether this may be the beginning of what a service says first in HTTP/2."""
    return (
        data[:1] == b"\0"
        and (len(data) < _SETTINGS_KNOWN_AT or int.from_bytes(data[:3]) % _SETTING.size == 0)
        and _SETTINGS_HEAD.startswith(data[_SETTINGS_KNOWN_AT:HEAD_BYTES])
    )


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def number_frame(kind: int, stream: int, number: int) -> bytes:
    """A frame that says one number: RST_STREAM, WINDOW_UPDATE."""
    return frame(kind, 0, stream, _NUMBER.pack(number))


def headers_frames(stream: int, block: bytes, *, end: bool, priority: bytes = b"") -> bytes:
    """HEADERS, and CONTINUATION as far as it is needed."""
    flags = (END_STREAM if end else 0) | (HAS_PRIORITY if priority else 0)
    first = SMALLEST_FRAME_BYTES_MOST - len(priority)
    if len(block) <= first:
        return frame(HEADERS, flags | END_HEADERS, stream, priority + block)
    parts = [frame(HEADERS, flags, stream, priority + block[:first])]
    for start in range(first, len(block), SMALLEST_FRAME_BYTES_MOST):
        rest = block[start : start + SMALLEST_FRAME_BYTES_MOST]
        last = start + SMALLEST_FRAME_BYTES_MOST >= len(block)
        parts.append(frame(CONTINUATION, END_HEADERS if last else 0, stream, rest))
    return b"".join(parts)


def content_of(payload: bytes, flags: int) -> bytes:
    """A frame's payload without its padding; NotHttp."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise NotHttp
    return payload[1 : len(payload) - payload[0]]


def number_in(payload: bytes) -> int:
    """The one number that a frame says, without its highest bit where that is reserved; NotHttp."""
    if len(payload) != _NUMBER.size:
        raise NotHttp
    number: int = _NUMBER.unpack(payload)[0]
    return number


def settings_in(payload: bytes) -> list[tuple[int, int]]:
    """The settings, in order; NotHttp."""
    if len(payload) % _SETTING.size:
        raise NotHttp
    return list(_SETTING.iter_unpack(payload))


def settings_payload(settings: list[tuple[int, int]]) -> bytes:
    """A SETTINGS frame's payload."""
    return b"".join(_SETTING.pack(*setting) for setting in settings)
