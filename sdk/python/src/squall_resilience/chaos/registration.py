"""NAME.<pid>.live: that a middleware is there, and how often what drives it has hit."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime_ns

from squall_resilience import __version__

__all__ = ["LIVE_BYTES", "Registration", "start_ticks"]

LIVE_BYTES = 128
_MAGIC = b"SQCHAOS1"
_HEAD = struct.Struct("<8sQQ")
_COUNTS = struct.Struct("<6Q")
_COUNTS_AT, _LANGUAGE_AT = _HEAD.size, 96
_AFTER_COMM = 20
"""Field 22 is the twentieth behind the name, which may hold spaces and brackets itself."""


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(text.rpartition(b")")[2].split()[_AFTER_COMM - 1])


class Registration:
    """This process's file for one name: made whole, and removed at its end. Raises OSError where it cannot be made.

    Counts are written through a descriptor that is looked at first: whoever closes descriptors wholesale, or cuts the
    file short, costs the counts and nothing else (a mapping would cost the process).
    """

    def __init__(self, folder: Path, name: str) -> None:
        pid = os.getpid()
        self.pid = pid
        self.path = folder / f"{name}.{pid}.live"
        self._lock = threading.Lock()
        self.requests = self.delayed = self.aborted = self.refused = self._delay_ns = self._last_ns = 0
        _remove_dead(folder, name)
        whole = _HEAD.pack(_MAGIC, pid, start_ticks(pid)).ljust(_LANGUAGE_AT, b"\0")
        whole += f"python {__version__}".encode()[:32].ljust(32, b"\0")
        aside = folder / f".{name}.{pid}.live"
        aside.unlink(missing_ok=True)  # of a process before, that had this pid
        self._fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._file = _which(self._fd)
        try:
            os.fchmod(self._fd, 0o644)
            os.write(self._fd, whole)
            aside.rename(self.path)
        except BaseException:
            os.close(self._fd)
            raise

    def count(self, *, requests: int = 0, refused: int = 0, delay_ns: int | None = None, aborted: bool = False) -> None:
        """Add to the counts, under a lock: they only grow."""
        with self._lock:
            self.requests += requests
            self.refused += refused
            if delay_ns is not None:
                self.delayed += 1
                self._delay_ns += delay_ns
            self.aborted += aborted
            if aborted or delay_ns is not None:
                self._last_ns = clock_gettime_ns(CLOCK_BOOTTIME)
            counts = (self.requests, self.delayed, self.aborted, self.refused, self._delay_ns, self._last_ns)
            with contextlib.suppress(OSError):
                if _which(self._fd) == self._file:
                    os.pwrite(self._fd, _COUNTS.pack(*counts), _COUNTS_AT)

    def remove(self) -> None:
        """Take the file away, where this is the process that made it, and let go of it."""
        with contextlib.suppress(OSError):
            if self.pid == os.getpid():
                self.path.unlink(missing_ok=True)
            if _which(self._fd) == self._file:
                os.close(self._fd)


def _which(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _remove_dead(folder: Path, name: str) -> None:
    """Remove files of this name whose process is gone, as far as that is allowed."""
    for path in folder.glob(f"{name}.*.live"):
        pid = path.name.removeprefix(f"{name}.").removesuffix(".live")
        if not (pid.isascii() and pid.isdecimal()):
            continue  # NAME may hold dots: another's name begins with this one
        try:
            _, _, ticks = _HEAD.unpack(path.read_bytes()[: _HEAD.size])
            if start_ticks(int(pid)) != ticks:
                path.unlink()
        except (OSError, struct.error):
            continue
