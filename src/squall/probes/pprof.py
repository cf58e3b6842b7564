"""Heap profiles of Go services, as /debug/pprof/heap serves them: gzipped protocol buffers (google/pprof, profile.proto)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HeapProfile", "ProfileError"]

PROFILE_BYTES_MOST = 64 << 20
_GZIP = 16 + zlib.MAX_WBITS
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Fields of the messages Profile, ValueType, Sample, Location, Line and Function.
_SAMPLE_TYPE, _SAMPLE, _LOCATION, _FUNCTION, _STRING = 1, 2, 4, 5, 6


class ProfileError(ValueError):
    """What was served is no heap profile; the message says how one can tell."""


@dataclass(frozen=True, slots=True)
class HeapProfile:
    """What is in use: in all, and by the function that allocated it (the innermost that is not the runtime's own)."""

    bytes_in_use: int
    by_function: dict[str, int]

    @classmethod
    def read(cls, data: bytes) -> HeapProfile:
        """The profile in these bytes; ProfileError for anything else. A sampled estimate: Go looks at one allocation in 512 KiB."""
        profile: dict[int, list[bytes | int]] = {}
        for field, value in _fields(_unzipped(data)):
            profile.setdefault(field, []).append(value)
        strings = [value.decode(errors="replace") for value in profile.get(_STRING, ()) if isinstance(value, bytes)]
        kinds = [strings[_number(value, 1)] for value in _messages(profile, _SAMPLE_TYPE)]
        if "inuse_space" not in kinds:
            raise ProfileError(f"a profile of {', '.join(kinds) or 'nothing'}, not of the heap: use /debug/pprof/heap")
        column = kinds.index("inuse_space")
        functions = {_number(one, 1): strings[_number(one, 2)] for one in _messages(profile, _FUNCTION)}
        places = {
            _number(one, 1): [functions.get(_number(line, 1), "") for line in _parts(one, 4)]
            for one in _messages(profile, _LOCATION)
        }
        by_function: dict[str, int] = {}
        total = 0
        for sample in _messages(profile, _SAMPLE):
            used = _packed(sample, 2)[column]
            names = [name for place in _packed(sample, 1) for name in places.get(place, ())]
            name = next((name for name in names if not name.startswith("runtime.")), names[0] if names else "")
            by_function[name] = by_function.get(name, 0) + used
            total += used
        return cls(total, by_function)

    def grown_most(self, since: HeapProfile) -> tuple[str, int]:
        """The function whose memory grew most since another profile, and by how many bytes; ("", 0) for none."""
        grown = {name: used - since.by_function.get(name, 0) for name, used in self.by_function.items()}
        name = max(grown, key=grown.__getitem__, default="")
        return (name, grown[name]) if name and grown[name] > 0 else ("", 0)


def _unzipped(data: bytes) -> bytes:
    try:
        unzip = zlib.decompressobj(_GZIP)
        plain = unzip.decompress(data, PROFILE_BYTES_MOST)
    except zlib.error as error:
        raise ProfileError(f"not a profile: {error}; without `debug=1` in the address it is gzipped") from None
    if unzip.unconsumed_tail:
        raise ProfileError(f"the profile is longer than {PROFILE_BYTES_MOST} bytes")
    return plain


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers and values of one message (protobuf.dev, "encoding"); ProfileError for what is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size, at = _varint(data, at) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(data):
            raise ProfileError("not a profile: a field does not fit into it")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:  # noqa: PLR2004 - a varint has 64 bits at most
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:  # noqa: PLR2004 - the last byte of it
            return value, at
    raise ProfileError("not a profile: a number does not end")


def _messages(profile: dict[int, list[bytes | int]], field: int) -> Iterator[bytes]:
    return (value for value in profile.get(field, ()) if isinstance(value, bytes))


def _parts(message: bytes, field: int) -> list[bytes]:
    return [value for number, value in _fields(message) if number == field and isinstance(value, bytes)]


def _number(message: bytes, field: int) -> int:
    return next((value for number, value in _fields(message) if number == field and isinstance(value, int)), 0)


def _packed(message: bytes, field: int) -> list[int]:
    """A repeated number, packed or not."""
    found: list[int] = []
    for number, value in _fields(message):
        if number != field:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = _varint(value, at)
            found.append(one)
    return found
