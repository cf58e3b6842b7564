"""HTTP/1.1 as a measuring client needs it: one prepared request, and an answer read from bytes torn anywhere.

No I/O, standard library only: the load's own process and the `http` and `prometheus` probes share it. The body is
counted, and kept only where it is asked for. Framing follows RFC 9112, section 6; lone line feeds are let pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Answer", "Call", "Malformed"]

HEAD_MOST = 65_536
"""Bytes of status line and headers (and of trailers) that are read before the answer counts as malformed."""
INTERIM_MOST = 16
"""1xx answers that are skipped before the real one."""
_LINE_MOST = 4096

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?(?:\r?\n|$)")
_FRAMING = re.compile(rb"\n(content-length|transfer-encoding|connection)[ \t]*:[ \t]*([^\r\n]*)")
_LENGTH = re.compile(rb"\d{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9a-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?", re.IGNORECASE)


class Malformed(Exception):  # noqa: N818 - reads as what it says
    """The answer is not HTTP/1.1, is cut short, or is over a bound."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, ready to be sent as often as wanted."""

    host: str
    port: int
    tls: bool
    data: bytes
    """The whole request, headers and body."""
    head: bool
    """The method is HEAD: the answer has no body whatever it announces."""
    success: frozenset[int]
    """Statuses that count as success."""


class Answer:
    """Reads one answer, in pieces of any size; `done` once it is whole, then `status` and `reusable` hold."""

    __slots__ = (
        "_body_most",
        "_buffer",
        "_head",
        "_interim",
        "_left",
        "_searched",
        "_state",
        "body",
        "done",
        "reusable",
        "status",
    )

    def __init__(self, *, head: bool = False, body_most: int = 0) -> None:
        self._head, self._body_most = head, body_most
        self.body = bytearray()
        self.reset()

    def reset(self) -> None:
        """Begin anew, for the next answer on the same connection."""
        self._buffer = b""
        self._state = "head"
        self._left = 0
        self._interim = self._searched = 0
        self.body.clear()
        self.status = 0
        self.done = False
        self.reusable = False

    @property
    def begun(self) -> bool:
        """Whether any byte of it has come."""
        return self._state != "head" or bool(self._buffer) or self._interim > 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raise Malformed once they cannot be an answer. Bytes after its end make it not reusable."""
        if self.done:
            self.reusable = self.reusable and not data
            return
        self._buffer = self._buffer + data if self._buffer else data
        more = True
        while more:
            more = self._step() and not self.done
        if self.done and self._buffer:
            self.reusable = False

    def end(self) -> None:
        """The connection was closed: whole if the answer ends with it, else Malformed."""
        if self._state == "until-close":
            self.done = True
        if not self.done:
            raise Malformed("closed before the end of the answer" if self.begun else "closed without an answer")

    def _step(self) -> bool:
        """Go on by one state if the buffer allows it."""
        if self._state == "head":
            return self._read_head()
        if self._state == "length":
            return self._read_length()
        if self._state == "until-close":
            self._keep(self._buffer)
            self._buffer = b""
            return False
        if self._state == "chunk-size":
            return self._read_chunk_size()
        if self._state == "chunk":
            return self._read_chunk()
        return self._read_trailer_line()

    def _read_head(self) -> bool:
        found = _HEAD_END.search(self._buffer, self._searched)
        self._searched = max(len(self._buffer) - 3, 0)  # the end may have begun: "\r\n\r"
        if found is None or found.end() > HEAD_MOST:
            if len(self._buffer) > HEAD_MOST:
                raise Malformed(f"headers longer than {HEAD_MOST} bytes")
            if not b"HTTP/1.".startswith(self._buffer[:7]):
                raise Malformed("not an HTTP/1.1 answer")
            return False
        head, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
        self._searched = 0
        line = _STATUS_LINE.match(head)
        if line is None:
            raise Malformed("not an HTTP/1.1 answer")
        status = int(line[2])
        if status < 200 and status != 101:  # noqa: PLR2004 - 101 is final, other 1xx are not: RFC 9110, 15.2
            self._interim += 1
            if self._interim > INTERIM_MOST:
                raise Malformed(f"more than {INTERIM_MOST} interim answers")
            return True
        self.status = status
        self._frame(head.lower(), old=line[1] == b"0")
        return True

    def _frame(self, head: bytes, *, old: bool) -> None:
        """How the body ends, and whether the connection may be used again."""
        lengths: set[bytes] = set()
        coding = options = b""
        for name, value in _FRAMING.findall(head):
            if name == b"content-length":
                lengths.update(part.strip() for part in value.split(b","))
            elif name == b"connection":
                options += b"," + value
            else:
                coding += b"," + value
        tokens = {token.strip() for token in options.split(b",")}
        self.reusable = b"close" not in tokens and (not old or b"keep-alive" in tokens)
        if self._head or self.status in (101, 204, 304):
            self.reusable = self.reusable and self.status != 101  # noqa: PLR2004 - no longer HTTP
            self.done = True
        elif coding:
            self.reusable = self.reusable and not lengths  # RFC 9112, 6.1: both given is a smuggling attempt or a bug
            if coding.rpartition(b",")[2].strip() == b"chunked":
                self._state = "chunk-size"
            else:
                self._state, self.reusable = "until-close", False
        elif lengths:
            text = lengths.pop()
            if lengths or not _LENGTH.fullmatch(text):
                raise Malformed("a Content-Length that is no single number")
            self._left, self._state = int(text), "length"
        else:
            self._state, self.reusable = "until-close", False

    def _keep(self, data: bytes) -> None:
        if self._body_most:
            if len(self.body) + len(data) > self._body_most:
                raise Malformed(f"a body longer than {self._body_most} bytes")
            self.body += data

    def _take(self) -> None:
        """Move body bytes out of the buffer, at most what is left of them."""
        taken = self._buffer[: self._left]
        self._buffer = self._buffer[len(taken) :]
        self._left -= len(taken)
        self._keep(taken)

    def _read_length(self) -> bool:
        self._take()
        self.done = self._left == 0
        return False

    def _line(self) -> bytes | None:
        line, found, rest = self._buffer.partition(b"\n")
        if len(line) > _LINE_MOST:
            raise Malformed("a chunk's line is too long")
        if not found:
            return None
        self._buffer = rest
        return line

    def _read_chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise Malformed("a chunk without a size")
        self._left = int(size[1], 16)
        self._state = "chunk" if self._left else "trailers"
        return True

    def _read_chunk(self) -> bool:
        """The chunk's bytes and the line end after them."""
        if self._left:
            self._take()
            if self._left:
                return False
        line = self._line()
        if line is None:
            if self._buffer not in (b"", b"\r"):
                raise Malformed("a chunk longer than its size")
            return False
        if line not in (b"", b"\r"):
            raise Malformed("a chunk longer than its size")
        self._state = "chunk-size"
        return True

    def _read_trailer_line(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self._left += len(line) + 1  # in this state: bytes of trailers so far
        if self._left > HEAD_MOST:
            raise Malformed(f"trailers longer than {HEAD_MOST} bytes")
        self.done = line in (b"", b"\r")
        return not self.done
