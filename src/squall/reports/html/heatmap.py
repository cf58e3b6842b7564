"""The density of latencies as a tiny PNG: a palette of one colour in rising opacity, so that it suits light and dark."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["png_data_uri"]

_COLOUR = (92, 124, 250)
_STEPS = 24
_OPACITY_MOST = 190


def png_data_uri(columns: Sequence[dict[int, float]], rows: int) -> str:
    """A data URI of an image as wide as there are columns; each maps a row (0 is the lowest) to its count."""
    most = max((value for column in columns for value in column.values()), default=1.0)
    scale = (_STEPS - 1) / math.log1p(most)
    lines = [bytearray(len(columns)) for _ in range(rows)]
    for x, column in enumerate(columns):
        for row, value in column.items():
            lines[rows - 1 - row][x] = 1 + round(math.log1p(value) * scale)
    return "data:image/png;base64," + base64.b64encode(_png(lines, len(columns), rows)).decode("ascii")


def _png(lines: list[bytearray], width: int, height: int) -> bytes:
    """A palette image (PNG specification, colour type 3, no filters)."""
    palette = bytes(_COLOUR) * (_STEPS + 1)
    opacity = bytes([0, *(28 + (_OPACITY_MOST - 28) * step // (_STEPS - 1) for step in range(_STEPS))])
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(line) for line in lines), 9)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"tRNS", opacity), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
