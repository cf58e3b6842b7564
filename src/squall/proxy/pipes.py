"""Kernel pipes: how bulk data passes, or waits, without being copied to user space (splice(2))."""

from __future__ import annotations

import fcntl
import os
from typing import Final

__all__ = ["PIPE_BYTES", "FilledPipe", "Pipe", "PipePool"]

PIPE_BYTES: Final = 1 << 20
_WORTHWHILE_BYTES: Final = 1 << 16
_KEPT: Final = 256


class Pipe:
    """A non-blocking pipe of about 1 MiB."""

    __slots__ = ("reader", "writer")

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reader)
        os.close(self.writer)


class PipePool:
    """Empty pipes for anybody; at most `limit` exist at once, and a few are kept ready."""

    def __init__(self, limit: int) -> None:
        self._free: list[Pipe] = []
        self._left = limit

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there can be no more: then the data has to be copied."""
        if self._free:
            return self._free.pop()
        if self._left <= 0:
            return None
        try:
            reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # out of descriptors
            return None
        pipe = Pipe(reader, writer)
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # this user's share of pipe memory is used up
            if fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) < _WORTHWHILE_BYTES:
                pipe.close()
                return None
        self._left -= 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take back an empty pipe."""
        if len(self._free) < _KEPT:
            self._free.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a pipe, whatever is in it."""
        pipe.close()
        self._left += 1


class FilledPipe:
    """A piece of a stream that waits in a pipe: its length is what is left of it."""

    __slots__ = ("_pool", "pipe", "size")

    def __init__(self, pool: PipePool, pipe: Pipe, size: int) -> None:
        self._pool, self.pipe, self.size = pool, pipe, size

    def __len__(self) -> int:
        return self.size

    def send(self, fd: int) -> int:
        """Move as much as the socket takes; return how much; the emptied pipe goes back to its pool.

        Raises OSError (not BlockingIOError) when the socket is broken.
        """
        sent = 0
        try:
            while sent < self.size:
                sent += os.splice(self.pipe.reader, fd, self.size - sent)
        except BlockingIOError:
            pass
        self.size -= sent
        if not self.size:
            self._pool.give(self.pipe)
        return sent

    def to_bytes(self) -> bytes:
        """The piece as bytes; the pipe goes back to its pool."""
        parts = []
        while self.size:
            part = os.read(self.pipe.reader, self.size)
            self.size -= len(part)
            parts.append(part)
        self._pool.give(self.pipe)
        return b"".join(parts)

    def discard(self) -> None:
        """Give up what is in it."""
        self.size = 0
        self._pool.discard(self.pipe)
