"""Header compression (RFC 7541): a reader and a writer of header blocks, each with its table.

The writer indexes what it may and leaves Huffman coding be: blocks are somewhat longer, and cheaper.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final

from squall.proxy.http2 import huffman

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEFAULT_TABLE_BYTES", "TABLE_BYTES_MOST", "BadBlock", "Field", "Fields", "NeverIndexed", "Reader", "Writer"]

Field = tuple[bytes, bytes]
Fields = list[Field]

DEFAULT_TABLE_BYTES: Final = 4096
TABLE_BYTES_MOST: Final = 1 << 16
_LIST_BYTES_MOST: Final = 1 << 18
_OVERHEAD: Final = 32
_NUMBER_BYTES_MOST: Final = 5
_REMEMBERED_MOST: Final = 64
_INDEXED_ONLY: Final = re.compile(rb"[\x81-\xbd\xbe-\xfe]+")
"""A block of single-byte indices changes no table, so it means the same until another block does."""

_STATIC_TEXT: Final = (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|"
    ":status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|"
    "accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|"
    "content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|"
    "cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|"
    "last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|"
    "server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)
_STATIC: Final[tuple[Field, ...]] = tuple(
    (name.encode(), value.encode()) for name, _, value in (item.partition("=") for item in _STATIC_TEXT.split("|"))
)
_STATIC_COUNT: Final = len(_STATIC)
_STATIC_WHOLE: Final = {field: number for number, field in reversed(list(enumerate(_STATIC, 1)))}
_STATIC_NAMES: Final = {field[0]: number for number, field in reversed(list(enumerate(_STATIC, 1)))}


class BadBlock(Exception):  # noqa: N818 - it is a finding about a stream, not something that went wrong here
    """This header block cannot be read, or is larger than may be."""


class NeverIndexed(tuple[bytes, bytes]):
    """A field that no table may hold: its sender said so, and so it is passed on."""

    __slots__ = ()


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + _OVERHEAD


class _Table:
    """The newest first; at most so many bytes."""

    def __init__(self) -> None:
        self.entries: deque[Field] = deque()
        self.bytes_most = DEFAULT_TABLE_BYTES
        self._bytes = 0

    def add(self, field: Field) -> None:
        self.entries.appendleft(field)
        self._bytes += _size(field)
        self._evict()

    def resize(self, bytes_most: int) -> None:
        self.bytes_most = bytes_most
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self.bytes_most:
            self._bytes -= _size(self.entries.pop())


class Reader:
    """Reads the blocks of one direction, each exactly once and in order."""

    def __init__(self) -> None:
        self._table = _Table()
        self._remembered: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """Its fields; BadBlock."""
        known = self._remembered.get(block)
        if known is not None:
            return known
        try:
            fields = self._read(block)
        except (IndexError, huffman.HuffmanError):
            raise BadBlock from None
        if not _INDEXED_ONLY.fullmatch(block):
            self._remembered.clear()
        elif len(self._remembered) < _REMEMBERED_MOST:
            self._remembered[block] = fields
        return fields

    def _read(self, block: bytes) -> Fields:
        at, size, left = 0, len(block), _LIST_BYTES_MOST
        fields: Fields = []
        while at < size:
            byte = block[at]
            field: Field
            if byte & 0x80:
                number, at = _number(block, at, 0x7F)
                field = self._at(number)
            elif byte & 0x40:
                field, at = self._literal(block, at, 0x3F)
                self._table.add(field)
            elif byte & 0x20:
                bytes_most, at = _number(block, at, 0x1F)
                if fields or bytes_most > TABLE_BYTES_MOST:
                    raise BadBlock
                self._table.resize(bytes_most)
                continue
            else:
                field, at = self._literal(block, at, 0x0F)
                if byte & 0x10:
                    field = NeverIndexed(field)
            left -= _size(field)
            if left < 0:
                raise BadBlock
            fields.append(field)
        return fields

    def _at(self, number: int) -> Field:
        if not number:
            raise BadBlock
        return _STATIC[number - 1] if number <= _STATIC_COUNT else self._table.entries[number - 1 - _STATIC_COUNT]

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[Field, int]:
        number, at = _number(block, at, mask)
        if number:
            name = self._at(number)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        return (name, value), at


def _number(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A number that begins in the low bits of a byte, and where it ends."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _NUMBER_BYTES_MOST, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return value, at
    raise BadBlock


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    size, at = _number(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise BadBlock
    text = block[at:end]
    return (huffman.decode(text) if coded else text), end


class Writer:
    """Writes the blocks of one direction, for a table that it empties first, whatever was in it."""

    def __init__(self, bytes_most: int) -> None:
        self._table = _Table()
        self._numbers: dict[Field, int] = {}
        self._added = 0
        self._updates = [0]
        self.resize(bytes_most)

    def resize(self, bytes_most: int) -> None:
        """Use no more than this from the next block on."""
        self._table.resize(bytes_most)
        least = min([*self._updates, bytes_most])
        self._updates = [least, bytes_most] if least < bytes_most else [bytes_most]

    def write(self, fields: Iterable[Field]) -> bytes:
        """The block of these fields."""
        block = bytearray()
        for bytes_most in self._updates:
            block += _written(bytes_most, 0x1F, 0x20)
        self._updates.clear()
        for field in fields:
            self._write(block, field)
        return bytes(block)

    def _write(self, block: bytearray, field: Field) -> None:
        name, value = field
        if isinstance(field, NeverIndexed):
            block += _written(_STATIC_NAMES.get(name, 0), 0x0F, 0x10)
        else:
            number = _STATIC_WHOLE.get(field) or self._indexed(field)
            if number:
                block += _written(number, 0x7F, 0x80)
                return
            if 2 * _size(field) <= self._table.bytes_most:
                block += _written(_STATIC_NAMES.get(name, 0), 0x3F, 0x40)
                self._table.add(field)
                self._added += 1
                self._numbers[field] = self._added
                if len(self._numbers) > 2 * len(self._table.entries):
                    self._forget()
            else:
                block += _written(_STATIC_NAMES.get(name, 0), 0x0F, 0)
        if name not in _STATIC_NAMES:
            block += _written(len(name), 0x7F, 0) + name
        block += _written(len(value), 0x7F, 0) + value

    def _indexed(self, field: Field) -> int:
        """Where it stands in the table; 0: it does not."""
        added = self._numbers.get(field)
        if added is None:
            return 0
        age = self._added - added
        return _STATIC_COUNT + 1 + age if age < len(self._table.entries) else 0

    def _forget(self) -> None:
        oldest = self._added - len(self._table.entries)
        self._numbers = {field: added for field, added in self._numbers.items() if added > oldest}


def _written(number: int, mask: int, flags: int) -> bytes:
    if number < mask:
        return bytes((flags | number,))
    out, number = bytearray((flags | mask,)), number - mask
    while number >= 0x80:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
