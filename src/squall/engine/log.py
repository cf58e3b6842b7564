"""Writes a run's events down and hands them to whoever listens."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from squall.events import Event, Stamp, Stamped, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from squall.engine.clock import Clock

__all__ = ["EventLog", "Listener"]

Listener = Callable[[Stamped], None]

SPARE_NAME = "spare"
_SPARE_BYTES = 1 << 16
"""Enough for the events of a run's end."""


class EventLog:
    """Stamps events and appends each to the file with one write, so that a killed engine leaves whole lines.

    A full disk does not stop a run's recovery: the first error is kept in `failure`, for the watchdog to end the run
    by, and a file that was put by for this is given up, so that how the run ended can still be written.
    """

    def __init__(self, path: Path, run: str, clock: Clock, listeners: Sequence[Listener] = ()) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._run, self._clock, self._listeners, self._seq = run, clock, tuple(listeners), 0
        self._spare = path.with_name(SPARE_NAME)
        _put_by(self._spare)
        self.failure: OSError | None = None

    def emit(self, event: Event) -> None:
        """Add one event to the stream."""
        stamped = Stamped(Stamp(self._run, self._seq, self._clock.wall_ns(), self._clock.mono_ns()), event)
        self._seq += 1
        line = encode(stamped).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            self._go_on_after(error, line)
        for listener in self._listeners:
            listener(stamped)

    def _go_on_after(self, error: OSError, line: bytes) -> None:
        """Keep the first error; give up the spare file and try once more."""
        first, self.failure = self.failure is None, self.failure or error
        if first:
            with contextlib.suppress(OSError):
                self._spare.unlink()
                self._append(line)

    def _append(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        if written < len(line):  # the disk is full: a half line would spoil the next one
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; harmless when closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                self._spare.unlink(missing_ok=True)


def _put_by(path: Path) -> None:
    """A file whose blocks are there; none where the file system cannot promise them."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _SPARE_BYTES)
        finally:
            os.close(fd)
