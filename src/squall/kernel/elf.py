"""Programs and libraries as they lie in files: sections, segments, symbols, notes (elf(5); 64-bit, little-endian).

A file is mapped, not read; names are searched for, no table is copied. Everything in it is somebody else's: what does
not fit together is an `ImageError`, never a guess.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from squall.errors import CannotInject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Elf", "Image", "ImageError", "Section", "Segment", "Symbol"]

Image = bytes | mmap.mmap
"""What an ELF file is read from: its bytes, or a mapping of them."""

_IDENT = b"\x7fELF\x02\x01\x01"
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_SECTIONS_MOST = _SEGMENTS_MOST = 4096
_NOBITS, _SYMTAB, _DYNSYM = 8, 2, 11
_LOAD, _NOTES = 1, 4
_EXECUTABLE = 1
_GO_BUILDINFO = b"\xff Go buildinf:"
_GO_INLINE = 2
_VERSION_MOST = 200
_OCCURRENCES_MOST = 256


class ImageError(CannotInject):
    """A file is no ELF file of a kind that is understood, or is damaged; the message names it."""


class Section(NamedTuple):
    """A part of the file by its name; `address` is where it wants to be in memory, 0 for nowhere."""

    name: str
    type: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int


class Segment(NamedTuple):
    """A part of the file that is mapped into memory."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int

    @property
    def executable(self) -> bool:
        """Whether code may run in it."""
        return bool(self.flags & _EXECUTABLE)


class Symbol(NamedTuple):
    """A name for an address. `section` 0: it is only asked for here, and defined in another file."""

    name: str
    address: int
    size: int
    type: int
    section: int


@dataclass(frozen=True, slots=True)
class _Table:
    entries: Section
    names: Section


class Elf:
    """One ELF file. `Elf.open(path)` maps it and wants to be closed; `Elf(image)` reads what is in memory already."""

    def __init__(self, image: Image, name: str = "the image") -> None:
        self.image, self.name = image, name
        self.size = len(image)
        if image[: len(_IDENT)] != _IDENT or self.size < _HEADER.size:
            raise ImageError(f"{name} is no 64-bit little-endian ELF file")
        kind, self.machine, _, self.entry, segments_at, sections_at, _, _, *counts = _HEADER.unpack_from(image)
        self.position_independent = kind == 3  # noqa: PLR2004 - ET_DYN
        segment_size, segment_count, section_size, section_count, names_index = counts
        self.segments = self._read_segments(segments_at, segment_size, segment_count)
        self.sections = self._read_sections(sections_at, section_size, section_count, names_index)

    @classmethod
    def open(cls, path: str) -> Self:
        """Map a file; ImageError when it is no ELF file, OSError when it cannot be read."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not os.fstat(fd).st_size:
                raise ImageError(f"{path} is empty")
            image = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        try:
            return cls(image, path)
        except BaseException:
            image.close()
            raise

    def close(self) -> None:
        """Give the mapping back."""
        if isinstance(self.image, mmap.mmap):
            self.image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _table(self, at: int, entry: int, count: int, record: struct.Struct, most: int) -> Iterator[tuple[int, ...]]:
        if count and (entry != record.size or count > most or at + entry * count > self.size):
            raise ImageError(f"{self.name}: its headers do not fit into it")
        for index in range(count):
            yield record.unpack_from(self.image, at + entry * index)

    def _read_segments(self, at: int, entry: int, count: int) -> tuple[Segment, ...]:
        rows = self._table(at, entry, count, _SEGMENT, _SEGMENTS_MOST)
        return tuple(
            Segment(kind, flags, offset, address, in_file, in_memory)
            for kind, flags, offset, address, _, in_file, in_memory, _ in rows
        )

    def _read_sections(self, at: int, entry: int, count: int, names_index: int) -> tuple[Section, ...]:
        rows = list(self._table(at, entry, count, _SECTION, _SECTIONS_MOST))
        if not rows:
            return ()
        if names_index >= len(rows):
            raise ImageError(f"{self.name}: its sections have no names")
        names_at, names_size = rows[names_index][4:6]
        for row in rows:
            if row[1] not in (0, _NOBITS) and row[4] + row[5] > self.size:
                raise ImageError(f"{self.name} is cut short")
        return tuple(
            Section(self._text(names_at, names_size, row[0]), row[1], row[3], row[4], row[5], row[6], row[9])
            for row in rows
        )

    def _text(self, at: int, size: int, offset: int) -> str:
        """A zero-terminated name in a table of names; "" for one outside it."""
        if offset >= size:
            return ""
        end = self.image.find(b"\0", at + offset, at + size)
        return bytes(self.image[at + offset : end]).decode(errors="replace") if end >= 0 else ""

    # ---- places

    def section(self, *names: str) -> Section | None:
        """The first section that has one of these names, in their order."""
        return next((one for name in names for one in self.sections if one.name == name), None)

    def contents(self, section: Section) -> bytes:
        """What is in a section; nothing where it takes no room in the file."""
        return b"" if section.type == _NOBITS else bytes(self.image[section.offset : section.offset + section.size])

    def file_offset(self, address: int) -> int:
        """Where in the file an address of its memory comes from; ImageError when from nowhere."""
        for one in self.segments:
            if one.type == _LOAD and one.address <= address < one.address + one.file_size:
                return address - one.address + one.offset
        raise ImageError(f"{self.name} has nothing at the address {address:#x}")

    def address_of(self, offset: int) -> int:
        """The address that a byte of the file has in memory; ImageError when it is not mapped."""
        for one in self.segments:
            if one.type == _LOAD and one.offset <= offset < one.offset + one.file_size:
                return offset - one.offset + one.address
        raise ImageError(f"{self.name}: the offset {offset:#x} is not mapped into memory")

    def executable(self, address: int) -> bool:
        """Whether code may run at an address."""
        return any(
            one.executable for one in self.segments
            if one.type == _LOAD and one.address <= address < one.address + one.file_size
        )  # fmt: skip

    # ---- symbols

    def _tables(self, which: Literal["all", "dynamic"]) -> Iterator[_Table]:
        kinds = (_SYMTAB, _DYNSYM) if which == "all" else (_DYNSYM,)
        for kind in kinds:
            for section in self.sections:
                if section.type == kind and section.entry_size == _SYMBOL.size and section.link < len(self.sections):
                    yield _Table(section, self.sections[section.link])

    @property
    def has_symbols(self) -> bool:
        """Whether it has a symbol table that says more than dynamic linking needs."""
        return any(one.type == _SYMTAB for one in self.sections)

    def symbols_named(self, name: str) -> list[Symbol]:
        """Every defined symbol with exactly this name, .symtab's before .dynsym's."""
        return [
            Symbol(name, *rest)
            for table in self._tables("all")
            for rest in self._entries_named(table, name.encode())
            if rest[3]
        ]

    def symbol(self, name: str) -> Symbol | None:
        """The first defined symbol with exactly this name."""
        return next(iter(self.symbols_named(name)), None)

    def symbols(self, which: Literal["all", "dynamic"] = "all") -> Iterator[Symbol]:
        """Every defined symbol; slow where there are tens of thousands."""
        for table in self._tables(which):
            for name, info, _, section, address, size in _SYMBOL.iter_unpack(self._entries(table)):
                if section:
                    text = self._text(table.names.offset, table.names.size, name)
                    yield Symbol(text, address, size, info & 15, section)

    def _entries(self, table: _Table) -> bytes:
        contents = self.contents(table.entries)
        return contents[: len(contents) // _SYMBOL.size * _SYMBOL.size]

    def _entries_named(self, table: _Table, name: bytes) -> Iterator[tuple[int, int, int, int]]:
        """Address, size, type and section. A name may also be the end of a longer one: linkers share them."""
        begin, end = table.names.offset, table.names.offset + table.names.size
        places: set[int] = set()
        at = self.image.find(name + b"\0", begin, end)
        while at >= 0 and len(places) < _OCCURRENCES_MOST:
            places.add(at - begin)
            at = self.image.find(name + b"\0", at + 1, end)
        if not places:
            return
        for text, info, _, section, address, size in _SYMBOL.iter_unpack(self._entries(table)):
            if text in places:
                yield address, size, info & 15, section

    # ---- who it is

    def notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Owner, type and contents of every note."""
        for one in self.segments:
            if one.type == _NOTES:
                yield from _notes(bytes(self.image[one.offset : one.offset + min(one.file_size, 1 << 20)]))

    @property
    def build_id(self) -> str:
        """The linker's build id (GNU), in hex; "" for none."""
        return next((body.hex() for owner, kind, body in self.notes() if owner == b"GNU" and kind == 3), "")  # noqa: PLR2004 - NT_GNU_BUILD_ID

    @property
    def go_build_id(self) -> str:
        """Go's own build id; "" for none, as in programs of other languages."""
        found = (body for owner, kind, body in self.notes() if owner == b"Go" and kind == 4)  # noqa: PLR2004 - ELF_NOTE_GOBUILDID_TAG
        return next(found, b"").decode(errors="replace")

    @property
    def go_version(self) -> str:
        """The Go release that it was built with, "go1.26.1"; "" where it does not say (not Go, or older than 1.18)."""
        section = self.section(".go.buildinfo")
        if section is None:
            return ""
        contents = self.contents(section)
        if not contents.startswith(_GO_BUILDINFO) or len(contents) < 34 or not contents[15] & _GO_INLINE:  # noqa: PLR2004
            return ""
        length = contents[32]  # a varint, but no release's name is as long as 128
        return contents[33 : 33 + length].decode("ascii", "replace") if length < _VERSION_MOST else ""

    @property
    def is_go(self) -> bool:
        """Whether Go's linker made it."""
        return self.section(".go.buildinfo", ".gopclntab") is not None or bool(self.go_build_id)


def _notes(contents: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + _NOTE.size <= len(contents):
        owner_size, size, kind = _NOTE.unpack_from(contents, at)
        owner_at = at + _NOTE.size
        body_at = owner_at + (owner_size + 3 & ~3)
        if body_at + size > len(contents):
            return
        yield contents[owner_at : owner_at + owner_size].rstrip(b"\0"), kind, contents[body_at : body_at + size]
        at = body_at + (size + 3 & ~3)
