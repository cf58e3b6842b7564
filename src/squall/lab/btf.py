"""BPF Type Format: what types, members and constants a kernel or an object knows (Documentation/bpf/btf).

Pure: bytes in, answers out. A kernel has more than a hundred thousand types, so that only their places are kept; what is
asked for is read when it is asked for.
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from functools import cached_property
from typing import NamedTuple

__all__ = ["Btf", "Member"]

_MAGIC, _HEADER = 0xEB9F, 24
INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNCTION, PROTOTYPE, VARIABLE, SECTION, FLOAT, DECLARATION_TAG, TYPE_TAG, ENUM64 = range(11, 20)
_MODIFIERS = {TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG}
_FIXED = {INT: 4, ARRAY: 12, VARIABLE: 4, DECLARATION_TAG: 4}
_PER_ENTRY = {STRUCT: 12, UNION: 12, ENUM: 8, PROTOTYPE: 8, SECTION: 12, ENUM64: 12}
_DEPTH_MAX = 16


class Member(NamedTuple):
    """A member of a struct or union; anonymous: name is empty."""

    name: str
    type: int


class Btf:
    """The types of one kernel or object.

    Raises:
        ValueError: the bytes are no BTF.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER or struct.unpack_from("<H", data)[0] != _MAGIC:
            raise ValueError("this is no BTF")
        header, type_at, type_size, string_at, string_size = struct.unpack_from("<5I", data, 4)
        self._data = data
        self._strings = data[header + string_at : header + string_at + string_size]
        self._places = array("I", [0])  # type 0 is void
        place, end = header + type_at, header + type_at + type_size
        unpack = struct.Struct("<I").unpack_from
        while place < end:
            self._places.append(place)
            (info,) = unpack(data, place + 4)
            kind = info >> 24 & 0x1F
            per_entry = _PER_ENTRY.get(kind)
            place += 12 + (per_entry * (info & 0xFFFF) if per_entry else _FIXED.get(kind, 0))

    @cached_property
    def _composed(self) -> dict[int, list[int]]:
        """Structs, unions and enums by the place of their name."""
        found: dict[int, list[int]] = defaultdict(list)
        unpack = struct.Struct("<II").unpack_from
        wanted = {STRUCT, UNION, ENUM, ENUM64}
        for number, place in enumerate(self._places[1:], start=1):
            name, info = unpack(self._data, place)
            if name and info >> 24 & 0x1F in wanted:
                found[name].append(number)
        return found

    def text(self, place: int) -> str:
        """A string by its place."""
        return self._strings[place : self._strings.index(b"\0", place)].decode()

    def name(self, number: int) -> str:
        """The name of a type; empty for an anonymous one."""
        return self.text(struct.unpack_from("<I", self._data, self._places[number])[0]) if number else "void"

    def kind(self, number: int) -> int:
        """What sort of type it is."""
        return struct.unpack_from("<I", self._data, self._places[number] + 4)[0] >> 24 & 0x1F if number else 0

    def members(self, number: int) -> list[Member]:
        """The members of a struct or union, in order."""
        place = self._places[number]
        (info,) = struct.unpack_from("<I", self._data, place + 4)
        return [
            Member(self.text(name), type_)
            for name, type_, _ in struct.iter_unpack("<3I", self._data[place + 12 : place + 12 + 12 * (info & 0xFFFF)])
        ]

    def constants(self, number: int) -> dict[str, int]:
        """The names and (unsigned) values of an enum."""
        place = self._places[number]
        (info,) = struct.unpack_from("<I", self._data, place + 4)
        form = "<III" if self.kind(number) == ENUM64 else "<II"
        size = struct.calcsize(form) * (info & 0xFFFF)
        entries = struct.iter_unpack(form, self._data[place + 12 : place + 12 + size])
        return {self.text(name): low | (high[0] << 32 if high else 0) for name, low, *high in entries}

    def bare(self, number: int) -> int:
        """The type without typedef, const and the like, and without array."""
        for _ in range(_DEPTH_MAX):
            kind = self.kind(number)
            if kind in _MODIFIERS:
                (number,) = struct.unpack_from("<I", self._data, self._places[number] + 8)
            elif kind == ARRAY:
                (number,) = struct.unpack_from("<I", self._data, self._places[number] + 12)
            else:
                break
        return number

    def named(self, name: str) -> list[int]:
        """Every struct, union or enum of this name."""
        found: list[int] = []
        begin = self._strings.find(b"\0" + name.encode() + b"\0")
        while begin >= 0:
            found += self._composed.get(begin + 1, ())
            begin = self._strings.find(b"\0" + name.encode() + b"\0", begin + 1)
        return found

    def has(self, type_name: str, path: tuple[str, ...]) -> bool:
        """Whether a type of this name has this member of a member; anonymous structs and unions are looked through."""
        return any(self._reaches(number, path, _DEPTH_MAX) for number in self.named(type_name))

    def _reaches(self, number: int, path: tuple[str, ...], depth: int) -> bool:
        if not path:
            return True
        number = self.bare(number)
        if not depth or self.kind(number) not in {STRUCT, UNION}:
            return False
        for member in self.members(number):
            if member.name == path[0] and self._reaches(member.type, path[1:], depth - 1):
                return True
            if not member.name and self._reaches(member.type, path, depth - 1):
                return True
        return False
