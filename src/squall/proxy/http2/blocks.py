"""The header blocks of one direction: read always, passed on as they came for as long as none was held, changed or left out.

From the first that was, what follows is written anew: the receiver's table would no longer be the sender's. The first
block of ours empties that table, so from then on it is ours.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from squall.proxy.http.heads import NotHttp
from squall.proxy.http2.hpack import DEFAULT_TABLE_BYTES, BadBlock, Reader, Writer

if TYPE_CHECKING:
    from squall.proxy.http2.hpack import Fields

__all__ = ["Blocks"]

_UNANSWERED_MOST: Final = 4096


class Blocks:
    """`as_they_came`: the receiver's table is the sender's."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._writer: Writer | None = None
        self._most = self._agreed = DEFAULT_TABLE_BYTES
        self._announced: deque[int] = deque()

    @property
    def as_they_came(self) -> bool:
        """Whether blocks may go on as they came."""
        return self._writer is None

    def read(self, block: bytes) -> Fields:
        """The fields of the next block; NotHttp."""
        try:
            return self._reader.read(block)
        except BadBlock:
            raise NotHttp from None

    def rewrite(self) -> None:
        """The block that was just read does not go on as it came."""
        if self._writer is None:
            self._writer = Writer(self._most)

    def write(self, fields: Fields) -> bytes:
        """A block of ours."""
        self.rewrite()
        assert self._writer is not None  # noqa: S101 - `rewrite` has just made one
        return self._writer.write(fields)

    def announced(self, table_bytes: int | None) -> None:
        """The receiver has sent settings, with this size of its table if it said one: less counts at once, more when acknowledged."""
        if len(self._announced) >= _UNANSWERED_MOST:
            raise NotHttp
        wanted = self._announced[-1] if self._announced else self._agreed
        self._announced.append(wanted if table_bytes is None else table_bytes)
        self._become(min(self._most, self._announced[-1]))

    def acknowledged(self) -> None:
        """The sender has acknowledged the oldest settings."""
        if not self._announced:
            raise NotHttp
        self._agreed = self._announced.popleft()
        self._become(min([self._agreed, *self._announced][:_UNANSWERED_MOST]))

    def _become(self, table_bytes: int) -> None:
        table_bytes = min(table_bytes, DEFAULT_TABLE_BYTES)
        if table_bytes != self._most:
            self._most = table_bytes
            if self._writer is not None:
                self._writer.resize(table_bytes)
