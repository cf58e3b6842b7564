"""The density of latencies as a tiny PNG: a palette of one colour in rising opacity, so that it suits light and dark.

General layout: `density_image` places the picture in a plot, `_log_columns` and `_linear_columns` make its rows suit
the scale, `png_data_uri` and `_png` write it.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import TYPE_CHECKING

from squall.reports.html.scales import Logarithmic
from squall.reports.html.tags import Html, el

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.reports.html.scales import Frame, Scale
    from squall.reports.record import Density, RequestSeries

__all__ = ["density_image", "png_data_uri"]

_COLOUR = (92, 124, 250)
_STEPS = 24
_OPACITY_MOST = 190
_LINEAR_ROWS = 100


def density_image(series: RequestSeries, frame: Frame, scale: Scale) -> Html | None:
    """The heat map behind the lines, one pixel a bucket and row, stretched to its place."""
    density, buckets = series.density, series.buckets
    if not density.rows or not buckets:
        return None
    left, right = frame.x(buckets[0].at_s), frame.x(buckets[-1].at_s + series.width_s)
    columns, rows, top, bottom = (
        _log_columns(density, scale) if isinstance(scale, Logarithmic) else _linear_columns(density, scale)
    )
    return el(
        "image", href=png_data_uri(columns, rows), x=left, y=top, width=max(right - left, 0.1), height=max(bottom - top, 0.1),
        preserveAspectRatio="none", class_="density",
    )  # fmt: skip


def _log_columns(density: Density, scale: Logarithmic) -> tuple[list[dict[int, float]], int, float, float]:
    """Rows as they are: only those that the scale holds."""
    first = next((row for row in range(density.rows) if density.floor_ns * density.ratio ** (row + 1) > scale.least), 0)
    last = max((row for row in range(density.rows) if density.floor_ns * density.ratio**row < scale.most), default=0)
    columns = [{row - first: float(count) for row, count in cells if first <= row <= last} for cells in density.cells]
    top, bottom = (
        scale.y(density.floor_ns * density.ratio ** (last + 1)),
        scale.y(density.floor_ns * density.ratio**first),
    )
    return columns, max(1, last - first + 1), top, bottom


def _linear_columns(density: Density, scale: Scale) -> tuple[list[dict[int, float]], int, float, float]:
    """Rows of equal height: a row of the density is spread over those that it covers."""
    spans = []
    for row in range(density.rows):
        low, high = (1 - scale.y(density.floor_ns * density.ratio**power) / scale.height for power in (row, row + 1))
        spans.append((int(low * _LINEAR_ROWS), max(int(low * _LINEAR_ROWS) + 1, round(high * _LINEAR_ROWS))))
    columns: list[dict[int, float]] = []
    for cells in density.cells:
        column: dict[int, float] = {}
        for row, count in cells:
            first, end = spans[row]
            for y in range(first, min(end, _LINEAR_ROWS)):
                column[y] = column.get(y, 0.0) + count / (end - first)
        columns.append(column)
    return columns, _LINEAR_ROWS, 0.0, scale.height


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
