"""What an object asks of a kernel: fields, types and constants that are relocated when it is loaded, and helpers.

Read from the object's own sections: .BTF, .BTF.ext (CO-RE relocations) and its instructions. Held against the BTF of a
kernel, this says which of them that kernel has, whether or not it takes the object.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall.lab.btf import ENUM, ENUM64, Btf

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Needs", "Relocation", "helpers_of"]

_OPTIONAL = {2: "field exists", 8: "type exists", 10: "constant exists", 12: "type matches"}
"""Relocations that ask; the others (bpf_core_relo_kind in linux/bpf.h) need what they name, unless one of these guards them."""
_LOCAL_TYPE = 6
_ENUM_VALUES = {10, 11}
_FUNCTION_SYMBOL, _PROGRAM_BITS, _EXECUTABLE = 2, 1, 4
_CALL = 0x85
_HEADER_WITH_RELOCATIONS = 32


@dataclass(frozen=True, slots=True, order=True)
class Relocation:
    """A field, type or constant that an object names."""

    type: str
    path: tuple[str, ...] = ()
    constant: str = ""
    asked: bool = False
    """Only asked for, or needed as well: an object that asks goes on without it."""

    def __str__(self) -> str:
        if self.constant:
            return f"{self.type}.{self.constant}"
        return ".".join([self.type, *self.path])

    def there(self, kernel: Btf) -> bool:
        """Whether the kernel has it."""
        if self.constant:
            return any(self.constant in kernel.constants(number) for number in _enums(kernel, self.type))
        return kernel.has(self.type, self.path)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one object asks of a kernel."""

    programs: tuple[str, ...]
    relocations: tuple[Relocation, ...]
    helpers: tuple[int, ...]
    """By number, as in the kernel's enum bpf_func_id."""

    @classmethod
    def of(cls, image: bytes) -> Needs:
        """Read a built object.

        Raises:
            ValueError: it is no little-endian 64-bit ELF file.
        """
        elf = _Elf(image)
        code = [
            elf.content(section)
            for section in elf.sections
            if section.type == _PROGRAM_BITS and section.flags & _EXECUTABLE
        ]
        calls = {
            immediate
            for text in code
            for opcode, registers, _, immediate in struct.iter_unpack("<BBhi", text)
            if opcode == _CALL and registers >> 4 == 0
        }
        types, extended = elf.named(".BTF"), elf.named(".BTF.ext")
        found = set(_relocations(Btf(types), extended)) if types and extended else set()
        needed = {each for each in found if not each.asked}
        asked = {each for each in found if each.asked}
        merged = {Relocation(each.type, each.path, each.constant, asked=True) for each in asked}
        merged |= {each for each in needed if Relocation(each.type, each.path, each.constant, asked=True) not in asked}
        return cls(programs=tuple(elf.programs()), relocations=tuple(sorted(merged)), helpers=tuple(sorted(calls)))


def helpers_of(kernel: Btf) -> dict[int, str]:
    """The helpers that a kernel knows: number and name, from its enum bpf_func_id."""
    named = {
        name: value for number in _enums(kernel, "bpf_func_id") for name, value in kernel.constants(number).items()
    }
    return {value: name.replace("BPF_FUNC_", "bpf_", 1) for name, value in named.items() if not name.startswith("__")}


def _enums(btf: Btf, name: str) -> list[int]:
    return [number for number in btf.named(name) if btf.kind(number) in {ENUM, ENUM64}]


def _relocations(types: Btf, extended: bytes) -> Iterator[Relocation]:
    (header,) = struct.unpack_from("<I", extended, 4)
    if header < _HEADER_WITH_RELOCATIONS:
        return  # an object without relocations
    at, length = struct.unpack_from("<II", extended, 24)
    place, end = header + at, header + at + length
    if not length:
        return
    (size,) = struct.unpack_from("<I", extended, place)
    place += 4
    while place < end:
        (count,) = struct.unpack_from("<I", extended, place + 4)
        place += 8
        for _ in range(count):
            _, number, access, kind = struct.unpack_from("<4I", extended, place)
            place += size
            if kind != _LOCAL_TYPE:
                yield _described(types, number, types.text(access), kind)


def _described(types: Btf, number: int, access: str, kind: int) -> Relocation:
    """A relocation in words; `access` is the way to it, "0:1:2" (the first index is of the pointer itself)."""
    number = types.bare(number)
    name = types.name(number).partition("___")[0]  # a flavour of the same type
    steps = [int(step) for step in access.split(":")]
    if kind in _ENUM_VALUES:
        constant = list(types.constants(number))[steps[0]].partition("___")[0]
        return Relocation(name, (), constant, kind in _OPTIONAL)
    path: list[str] = []
    for step in steps[1:]:
        number = types.bare(number)
        members = types.members(number) if types.kind(number) not in {ENUM, ENUM64} else []
        if step >= len(members):
            break  # an array's index
        if members[step].name:
            path.append(members[step].name)
        number = members[step].type
    return Relocation(name, tuple(path), "", kind in _OPTIONAL)


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    type: int
    flags: int
    at: int
    size: int


@dataclass(slots=True)
class _Elf:
    """The sections and functions of an ELF file (elf(5))."""

    image: bytes
    sections: list[_Section] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.image.startswith(b"\x7fELF\x02\x01"):
            raise ValueError("this is no little-endian 64-bit ELF file")
        (at,) = struct.unpack_from("<Q", self.image, 40)
        size, count, strings = struct.unpack_from("<HHH", self.image, 58)
        headers = [struct.unpack_from("<IIQQQQ", self.image, at + size * number) for number in range(count)]
        names = headers[strings][4]
        self.sections = [
            _Section(self._text(names + name), type_, flags, offset, length)
            for name, type_, flags, _, offset, length in headers
        ]

    def _text(self, at: int) -> str:
        return self.image[at : self.image.index(b"\0", at)].decode()

    def content(self, section: _Section) -> bytes:
        """A section's bytes."""
        return self.image[section.at : section.at + section.size]

    def named(self, name: str) -> bytes:
        """The bytes of the section of this name; empty where there is none."""
        return next((self.content(section) for section in self.sections if section.name == name), b"")

    def programs(self) -> list[str]:
        """Every program: a global function in a section of its own kind, which .text is not."""
        strings = next((section.at for section in self.sections if section.name == ".strtab"), 0)
        found = [
            self._text(strings + name)
            for name, info, _, section, _, _ in struct.iter_unpack("<IBBHQQ", self.named(".symtab"))
            if info & 0xF == _FUNCTION_SYMBOL and info >> 4 == 1 and self.sections[section].name != ".text"
        ]
        return sorted(found)
