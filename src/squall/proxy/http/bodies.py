"""Where a body ends: scanners that are fed as bytes come, and can collect the payload on the way (RFC 9112, 6-7)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from squall.proxy.http.heads import NotHttp

if TYPE_CHECKING:
    from squall.proxy.http.heads import Framing

__all__ = ["Body", "body_of"]

_LINE_MOST: Final = 1 << 13
_TRAILERS_MOST: Final = 1 << 16
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class Body:
    """Nothing: a body of no bytes, and the base of the others. `payload` is what was collected, decoded."""

    def __init__(self) -> None:
        self.done = True
        self.payload: bytearray | None = None

    def collect(self) -> None:
        """Keep the payload from now on."""
        self.payload = bytearray()

    def scan(self, data: bytes, start: int) -> int:
        """How far the body reaches in these bytes, from `start`; `done` says whether it ends there. NotHttp."""
        del data
        return start

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if self.payload is not None:
            self.payload += data[start:end]


class _Length(Body):
    def __init__(self, length: int) -> None:
        super().__init__()
        self._left = length
        self.done = not length

    def scan(self, data: bytes, start: int) -> int:
        end = min(len(data), start + self._left)
        self._keep(data, start, end)
        self._left -= end - start
        self.done = not self._left
        return end


class _UntilClose(Body):
    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def scan(self, data: bytes, start: int) -> int:
        self._keep(data, start, len(data))
        return len(data)


class _Chunked(Body):
    """Chunk size line, data, line end, ..., a chunk of size 0, trailers, empty line."""

    def __init__(self) -> None:
        super().__init__()
        self.done = False
        self._left = 0
        self._line = b""
        self._part = "size"
        self._trailers = 0

    def scan(self, data: bytes, start: int) -> int:
        position = start
        while position < len(data) and not self.done:
            if self._part == "data":
                end = min(len(data), position + self._left)
                self._keep(data, position, end)
                self._left -= end - position
                position = end
                if not self._left:
                    self._part = "data end"
            else:
                position = self._scan_line(data, position)
        return position

    def _scan_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end + 1
        self._line += data[position:end]
        if len(self._line) > _LINE_MOST:
            raise NotHttp
        if self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            self._end_line(line)
        return end

    def _end_line(self, line: bytes) -> None:
        if self._part == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                raise NotHttp
            self._left = int(match[1], 16)
            self._part = "data" if self._left else "trailers"
        elif self._part == "data end":
            if line != b"\r\n":
                raise NotHttp
            self._part = "size"
        else:
            self._trailers += len(line)
            if not line.endswith(b"\r\n") or self._trailers > _TRAILERS_MOST:
                raise NotHttp
            self.done = line == b"\r\n"


def body_of(framing: Framing) -> Body:
    """A scanner for a body so framed."""
    match framing.kind:
        case "length":
            return _Length(framing.length)
        case "chunked":
            return _Chunked()
        case "close":
            return _UntilClose()
        case "none":
            return Body()
