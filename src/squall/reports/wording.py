"""How the reports write quantities and foreign text: three significant digits, units always, nothing invisible."""

from __future__ import annotations

import datetime as dt
import math
import re

__all__ = [
    "MISSING",
    "ago",
    "clock",
    "count",
    "duration",
    "gauge",
    "measure",
    "moment",
    "number_of",
    "one_line",
    "percent",
    "printable",
    "size",
    "within",
]

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, what turns the direction of text around, and halves of surrogate pairs: none may pass unseen."""

MISSING = "\N{EN DASH}"
"""What stands where there is no number."""

_MINUTE_NS = 60e9
_FINEST, _LARGEST = 1e-6, 1e15
"""Beyond these, numbers are written with a power of ten."""
_ROUNDS_TO_ONE = 0.9995
"""From here on three significant digits make the next larger unit."""


def printable(text: object) -> str:
    """The text with each control, bidirectional or unencodable character replaced by U+FFFD; tabs and line ends stay."""
    return _UNSEEN.sub("\ufffd", str(text).replace("\r\n", "\n"))


def one_line(text: object, most: int = 400) -> str:
    """The text as one line of at most `most` characters, cut with an ellipsis."""
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _significant(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    if not _FINEST <= abs(value) <= _LARGEST:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 9)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(ns: float | None) -> str:
    """Nanoseconds as people say them: "312 ms", "1.24 s", "2 min 5 s"; a dash for None."""
    if ns is None or not math.isfinite(ns):
        return MISSING
    if ns < 0:
        return "-" + duration(-ns)
    if ns >= _MINUTE_NS:
        minutes, seconds = divmod(round(ns / 1e9), 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "min"), (seconds if not hours else 0, "s")]
        return " ".join(f"{value} {unit}" for value, unit in parts if value)
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if round(ns / scale, 6) >= _ROUNDS_TO_ONE:
            return f"{_significant(ns / scale)} {unit}"
    return f"{_significant(ns)} ns" if ns else "0 s"


def percent(ratio: float | None) -> str:
    """A share as "0.4 %"; a dash for None."""
    if ratio is None or not math.isfinite(ratio):
        return MISSING
    return f"{_significant(ratio * 100)} %"


def count(value: float | None) -> str:
    """A whole number with separators: "12,400"; a dash for None."""
    return MISSING if value is None else f"{value:,.0f}"


def number_of(value: int, noun: str) -> str:
    """So many of something: "1 step", "12 steps"."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def within(ns: float | None) -> str:
    """How long something took, where nothing at all is "at once"; a dash for None."""
    return "at once" if ns == 0 else duration(ns)


def size(value: float) -> str:
    """Bytes as "64 MiB"."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(value) >= 1024**power:
            return f"{_significant(value / 1024**power)} {unit}"
    return f"{value:.0f} B"


def measure(value: float | None, unit: str) -> str:
    """A finding's number in its unit: `ns`, `ratio`, `count` or none."""
    if value is None:
        return MISSING
    if unit == "ns":
        return duration(value)
    if unit == "ratio":
        return percent(value)
    return _significant(value) if math.isfinite(value) else MISSING


def gauge(name: str, value: float) -> str:
    """A gauge's value, in the unit that its name tells: `.rss` is bytes, `.cpu` cores."""
    if name.endswith((".rss", ".bytes", ".memory")):
        return size(value)
    if name.endswith(".cpu"):
        return f"{_significant(value)} cores"
    return _significant(value) if math.isfinite(value) else MISSING


def clock(wall_ns: int) -> str:
    """A moment of Unix time as "2026-03-01 14:05:09 UTC"."""
    try:
        return dt.datetime.fromtimestamp(wall_ns / 1e9, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def moment(seconds: float) -> str:
    """A moment of the run as "+12.3 s" or "+1:02:03"."""
    sign = "-" if seconds < 0 else "+"
    whole = abs(seconds)
    if whole < 100:  # noqa: PLR2004 - below it, tenths matter
        return f"{sign}{whole:.1f} s"
    minutes, rest = divmod(round(whole), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}:{minutes:02d}:{rest:02d}" if hours else f"{sign}{minutes}:{rest:02d} min"


def ago(seconds: float) -> str:
    """A length of time in seconds, for sentences."""
    return duration(max(seconds, 0.0) * 1e9)
