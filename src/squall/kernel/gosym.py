"""Where the functions of a Go program are: by its symbols, and by its pclntab when it was stripped of them.

The pclntab is the table by which Go's runtime itself names functions in a traceback; no linker flag removes it. Its
layouts are those of Go 1.16, 1.18 and 1.20 (runtime/symtab.go, debug/gosym); any other is refused, not guessed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.kernel.elf import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.kernel.elf import Elf, Section

__all__ = ["GoFunctions", "version_of"]

_OLDEST, _GO116, _GO118, _GO120 = 0xFFFFFFFB, 0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1
_MAGICS = (_GO120, _GO118, _GO116)
_HEADER_116, _HEADER_118 = struct.Struct("<IHBB7Q"), struct.Struct("<IHBB8Q")
_ADDRESS_SIZE = 8
_QUANTA = (1, 4)
_FUNCTIONS_MOST = 4_000_000
_NAME_MOST = 4096
_TABLE_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_DATA_SECTIONS = (".go.module", ".noptrdata", ".data", ".data.rel.ro", ".gopclntab", ".rodata")
_TEXT_IN_MODULEDATA, _FIRST_IN_MODULEDATA = 176, 160
"""Where `text` and `minpc` are in runtime.moduledata from Go 1.18 on."""
_RELA = struct.Struct("<QQq")
_RELA_ADDEND_AT = 16


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of "go1.26.1" or "go1.27-devel_..."; (0, 0) where that cannot be told."""
    major, _, rest = text.removeprefix("go").partition(".")
    minor = rest[: next((at for at, one in enumerate(rest) if not one.isdigit()), len(rest))]
    return (int(major), int(minor)) if text.startswith("go") and major.isdigit() and minor else (0, 0)


@dataclass(frozen=True, slots=True)
class _Table:
    """A pclntab that fits together. Offsets are in the file."""

    magic: int
    begin: int
    end: int
    count: int
    names: int
    functions: int
    text_start: int
    """As the header has it: 0 where it leaves that to moduledata."""

    @property
    def entry(self) -> struct.Struct:
        """One row of the table of functions: where its code is, where what is known of it is."""
        return struct.Struct("<QQ" if self.magic == _GO116 else "<II")

    @property
    def fact_name_at(self) -> int:
        """Where in a function's facts the offset of its name is."""
        return 8 if self.magic == _GO116 else 4


class GoFunctions:
    """The functions of one Go program, searched for by name; ImageError when it has no table that is understood."""

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._found: _Table | None = None
        self._text: int | None = None
        if not elf.is_go:
            raise ImageError(f"{elf.name} is no Go program")
        self.stripped = not elf.has_symbols
        if self.stripped:
            self._table()

    def address(self, name: str) -> int | None:
        """The address (as in the file, before relocation) of the function's first instruction; None when it is not in it.

        `name` is the linker's: "net/http.serverHandler.ServeHTTP", "net/http.(*conn).serve", "main.handler".
        """
        if not self.stripped:
            symbol = self._elf.symbol(name)
            found = symbol.address if symbol is not None and self._elf.executable(symbol.address) else None
            if found is not None:
                return found
        places = self._names(name.encode())
        return next((at for at, name_at in self._rows() if name_at in places), None) if places else None

    def offset(self, name: str) -> int | None:
        """The same as an offset in the file, as uprobes want it."""
        address = self.address(name)
        return self._elf.file_offset(address) if address is not None else None

    def end(self, address: int) -> int:
        """Where the function ends that has its first instruction here: the next one's address; ImageError for none."""
        for at, following in self.spans():
            if at == address:
                return following
        raise ImageError(f"{self._elf.name} has no function that begins at {address:#x}")

    def matching(self, part: str, most: int = 20) -> list[str]:
        """Names that contain this text, for a message that helps; `most` at most."""
        table, wanted = self._table(), part.encode()
        found: list[str] = []
        at = self._elf.image.find(wanted, table.names, table.end)
        while at >= 0 and len(found) < most:
            begin = self._elf.image.rfind(b"\0", table.names, at) + 1
            end = self._elf.image.find(b"\0", at, table.end)
            if end < 0 or end - begin > _NAME_MOST:
                break
            found.append(bytes(self._elf.image[begin or table.names : end]).decode(errors="replace"))
            at = self._elf.image.find(wanted, end, table.end)
        return found

    # ---- the table

    def _names(self, name: bytes) -> set[int]:
        """Offsets in the table of names at which exactly this name stands."""
        table = self._table()
        found: set[int] = set()
        at = table.names - 1
        while (at := self._elf.image.find(b"\0" + name + b"\0", at, table.end)) >= 0 and len(found) < 16:  # noqa: PLR2004
            found.add(at + 1 - table.names)
            at += 1
        return found

    def _rows(self) -> Iterator[tuple[int, int]]:
        """For each function its address and the offset of its name."""
        table, image = self._table(), self._elf.image
        base = 0 if table.magic == _GO116 else self._text_start()
        name = struct.Struct("<i")
        size = table.entry.size * table.count
        for code, facts in table.entry.iter_unpack(image[table.functions : table.functions + size]):
            at = table.functions + facts + table.fact_name_at
            if at + 4 > table.end:
                raise ImageError(f"{self._elf.name}: its table of functions is damaged")
            yield base + code, name.unpack_from(image, at)[0]

    def spans(self) -> Iterator[tuple[int, int]]:
        """First and past-the-last address of each function, ascending; padding behind a function counts to it."""
        table = self._table()
        base = 0 if table.magic == _GO116 else self._text_start()
        word = struct.Struct("<Q" if table.magic == _GO116 else "<I")
        before = None
        for index in range(table.count + 1):  # one row more than functions: the end of the last
            code = base + word.unpack_from(self._elf.image, table.functions + index * table.entry.size)[0]
            if before is not None:
                yield before, code
            before = code

    def _table(self) -> _Table:
        if self._found is None:
            self._found = _find(self._elf)
        return self._found

    def _text_start(self) -> int:
        """The address that the table counts from: a symbol's, moduledata's, the header's, in this order."""
        if self._text is not None:
            return self._text
        table = self._table()
        symbol = self._elf.symbol("runtime.text")
        candidates = [symbol.address if symbol is not None else 0, *_moduledata_text(self._elf, table)]
        first, last = (
            struct.unpack_from("<I", self._elf.image, table.functions + row * table.entry.size)[0]
            for row in (0, table.count - 1)
        )
        for text in (*candidates, table.text_start):
            if text and self._elf.executable(text + first) and self._elf.executable(text + last):
                self._text = text
                return text
        raise ImageError(f"{self._elf.name}: it cannot be told where its table of functions counts from")


def _find(elf: Elf) -> _Table:
    """The pclntab: by its section, else by its first bytes in the data of programs that were linked by others."""
    section = elf.section(*_TABLE_SECTIONS)
    if section is not None:
        table = _read(elf, section, section.offset)
        if table is not None:
            return table
        magic = int.from_bytes(elf.image[section.offset : section.offset + 4], "little")
        was = "older than Go 1.16" if magic == _OLDEST else f"of a layout ({magic:#x}) that is not known"
        raise ImageError(f"{elf.name}: its table of functions is {was}; Go 1.16 to 1.26 are understood")
    for other in elf.sections:
        if other.name in (".data.rel.ro", ".rodata", ".data"):
            for magic in _MAGICS:
                start = magic.to_bytes(4, "little") + b"\0\0"
                at = elf.image.find(start, other.offset, other.offset + other.size)
                table = _read(elf, other, at) if at >= 0 else None
                if table is not None:
                    return table
    raise ImageError(f"{elf.name} has neither symbols nor a table of functions that is understood")


def _read(elf: Elf, section: Section, at: int) -> _Table | None:
    """The table that begins there, None when something about it is not as it must be."""
    end = section.offset + section.size
    if at + _HEADER_118.size > end:
        return None
    magic, padding, quantum, address_size = struct.unpack_from("<IHBB", elf.image, at)
    if magic not in _MAGICS or padding or quantum not in _QUANTA or address_size != _ADDRESS_SIZE:
        return None
    if magic == _GO116:
        _, _, _, _, count, _, names, _, _, _, functions = _HEADER_116.unpack_from(elf.image, at)
        text_start, row = 0, 16
    else:
        _, _, _, _, count, _, text_start, names, _, _, _, functions = _HEADER_118.unpack_from(elf.image, at)
        row = 8
    if not 0 < count <= _FUNCTIONS_MOST or not 0 < names < functions:
        return None
    if at + functions + row * (count + 1) > end:
        return None
    return _Table(magic, at, end, count, at + names, at + functions, text_start)


def _moduledata_text(elf: Elf, table: _Table) -> Iterator[int]:
    """What moduledata, which begins with a pointer to the table, says is the start of the code."""
    address = elf.address_of(table.begin)
    wanted = struct.pack("<Q", address)
    first = struct.unpack_from("<I", elf.image, table.functions)[0]
    for name in _DATA_SECTIONS:  # a program at a fixed address has its pointers in place
        section = elf.section(name)
        at = elf.image.find(wanted, section.offset, section.offset + section.size) if section is not None else -1
        if section is not None and 0 <= at <= section.offset + section.size - _TEXT_IN_MODULEDATA - 8:
            text = struct.unpack_from("<Q", elf.image, at + _TEXT_IN_MODULEDATA)[0]
            if struct.unpack_from("<Q", elf.image, at + _FIRST_IN_MODULEDATA)[0] == text + first:
                yield text
    relocations = elf.section(".rela.dyn", ".rela")  # a position-independent one has them in its relocations
    if relocations is not None:
        yield from _relocated_text(elf, relocations, address)


def _relocated_text(elf: Elf, relocations: Section, address: int) -> Iterator[int]:
    contents = elf.contents(relocations)
    at = contents.find(struct.pack("<q", address))
    while at >= 0 and at % _RELA.size != _RELA_ADDEND_AT:
        at = contents.find(struct.pack("<q", address), at + 1)
    if at < 0:
        return
    module = struct.unpack_from("<Q", contents, at - _RELA_ADDEND_AT)[0]
    wanted = struct.pack("<Q", module + _TEXT_IN_MODULEDATA)
    at = contents.find(wanted)
    while at >= 0 and at % _RELA.size:
        at = contents.find(wanted, at + 1)
    if at >= 0:
        yield _RELA.unpack_from(contents, at)[2]
