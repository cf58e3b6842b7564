"""Fills a file system, or keeps its disk busy, with files that have no name: they are gone when this process is."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.kernel.memory import machine_memory
from squall.kernel.own import be_named
from squall.workers.lifeline import HELD_BACK, Lifeline, Refused, enter, run, sized

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Config", "check", "main", "purpose"]

_STEP = 64 << 20
"""Space taken between two looks at the life line and at what is free."""
_RING = 64 << 20
"""The rate is written round and round in a file of this size."""
_WRITE_MOST = 1 << 20
"""Between two fdatasync: a slow disk must not hold up the end."""
_TICK_S = 0.1
_NOT_DISKS = ("/proc", "/sys", "/dev")
_MEMORY_KEPT = 0.10
"""A tmpfs is filled with memory: this share of the machine's stays available."""


class Config(NamedTuple):
    """Take `fill_bytes`, or space until `fill_share` (0..1) of the file system is used; write and sync at a rate; or both.

    `spare_bytes` stay free for unprivileged users, whatever is asked.
    """

    path: str
    spare_bytes: int
    fill_bytes: int | None = None
    fill_share: float | None = None
    write_bytes_per_s: int | None = None
    cgroups: tuple[str, ...] = ()


def purpose(config: Config) -> str:
    """What the worker does, for people."""
    fill = ""
    if config.fill_bytes is not None:
        fill = f"take {sized(config.fill_bytes)} in {config.path}"
    elif config.fill_share is not None:
        fill = f"fill the file system of {config.path} to {config.fill_share:.0%}"
    write = (
        f"write and sync {sized(config.write_bytes_per_s)}/s in {config.path}"
        if config.write_bytes_per_s is not None
        else ""
    )
    return " and ".join(part for part in (fill, write) if part)


def check(config: Config) -> None:
    """Raise Refused when the folder cannot be used, or does not have that much to give now; leaves nothing."""
    with _opened(config.path) as folder:
        os.close(_nameless(folder, config.path))
        _wanted(config, folder)


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_named("squall-disk")
    config = Config(**data)
    with _opened(config.path) as folder:
        taken, ring = _nameless(folder, config.path), _nameless(folder, config.path)
        wanted = _wanted(config, folder)
        enter(config.cgroups)
        line.ready()
        while True:
            config = _keep(line, _Site(folder, taken, ring), config, wanted)
            wanted = _wanted(config, folder, _size(taken))


class _Site(NamedTuple):
    """The descriptors: of the folder, of the file that takes space, of the file that is written round and round."""

    folder: int
    taken: int
    ring: int


def _keep(line: Lifeline, site: _Site, config: Config, wanted: int) -> Config:
    """Do what this configuration asks for until there is another one, which is returned."""
    if wanted < _size(site.taken):
        os.ftruncate(site.taken, wanted)
    writer = _Writer(site.ring, config.write_bytes_per_s)
    while True:
        step = min(wanted - _size(site.taken), _STEP)
        grown = step > 0 and _spare_after(config, site.folder, step) >= 0 and _grow(site.taken, step)
        be_named(HELD_BACK if step > 0 and not grown else "squall-disk")
        pause = 0 if grown and step == _STEP else _TICK_S
        if config.write_bytes_per_s is not None:
            room = _spare_after(config, site.folder, 0) + _size(site.ring)
            pause = min(pause, writer.write(min(room, _RING)))
        new = line.wait(pause)
        if new is not None:
            return Config(**{**new, "path": config.path})


class _Writer:
    """Writes at a rate: what was not written in time because the disk is slow is not made up for."""

    def __init__(self, fd: int, rate: int | None) -> None:
        self._fd, self._rate = fd, rate or 0
        self._noise = os.urandom(_WRITE_MOST)
        self._last = time.monotonic()
        self._owed = 0.0
        self._at = 0

    def write(self, most: int) -> float:
        """Write and sync what is due, in a ring of at most so many bytes; returns for how many seconds nothing is due."""
        now = time.monotonic()
        self._owed = min(self._owed + (now - self._last) * self._rate, max(_WRITE_MOST, _TICK_S * self._rate))
        self._last = now
        block = max(1, min(_WRITE_MOST, int(self._rate * _TICK_S / 2)))
        if self._owed < block or most < block:
            return (block - self._owed) / self._rate if self._owed < block else _TICK_S
        if self._at + block > most:
            self._at = 0
        os.pwrite(self._fd, self._noise[:block], self._at)
        os.fdatasync(self._fd)
        self._at += block
        self._owed -= block
        return 0.0


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"{path} cannot be used: {error.strerror}") from error
    try:
        real = os.readlink(f"/proc/self/fd/{folder}")
        if any(real == place or real.startswith(place + "/") for place in _NOT_DISKS):
            raise Refused(f"{path} is in {real.split('/')[1]!r}, which is the kernel's, not a disk")
        yield folder
    finally:
        os.close(folder)


def _nameless(folder: int, path: str) -> int:
    """A new file without a name; where the file system has none such, one whose name is taken away at once."""
    try:
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
                raise
        name = f".squall-{os.urandom(16).hex()}"
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        raise Refused(f"nothing can be written in {path}: {error.strerror}") from error
    return fd


def _size(fd: int) -> int:
    return os.fstat(fd).st_size


def _wanted(config: Config, folder: int, taken: int = 0) -> int:
    """The size that the file shall have, whole blocks; Refused when it would use up what must stay free."""
    space = os.fstatvfs(folder)
    free, block = space.f_bavail * space.f_frsize + taken, space.f_frsize
    if config.fill_bytes is not None:
        wanted = config.fill_bytes
    elif config.fill_share is not None:
        used = (space.f_blocks - space.f_bfree) * block - taken
        wanted = int(config.fill_share * (used + free)) - used
        if wanted <= 0:
            raise Refused(f"the file system of {config.path} is fuller than {config.fill_share:.0%} already")
    else:
        wanted = 0
    wanted = -(-wanted // block) * block
    if free - wanted < config.spare_bytes:
        raise Refused(
            f"{sized(wanted)} cannot be taken in {config.path}: {sized(free)} are free, "
            f"and {sized(config.spare_bytes)} of it must stay so (`spare`)"
        )
    memory = machine_memory()
    if _in_memory(folder) and memory.available + taken - wanted < memory.total * _MEMORY_KEPT:
        raise Refused(
            f"{sized(wanted)} cannot be taken in {config.path}: it is a tmpfs, and the machine's memory would run out"
        )
    return wanted


def _spare_after(config: Config, folder: int, step: int) -> int:
    """How much more than the spare is free after so many bytes more are taken; below 0: too little."""
    space = os.fstatvfs(folder)
    room = space.f_bavail * space.f_frsize - step - config.spare_bytes
    if _in_memory(folder):
        memory = machine_memory()
        room = min(room, int(memory.available - step - memory.total * _MEMORY_KEPT))
    return room


def _grow(fd: int, step: int) -> bool:
    """Take so much more; False when it is not to be had any more."""
    size = _size(fd)
    try:
        os.posix_fallocate(fd, size, step)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        os.ftruncate(fd, size)
        return False
    return True


def _in_memory(folder: int) -> bool:
    """Whether the folder's file system keeps its files in memory, by its device's line in mountinfo."""
    device = os.fstat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        for row in file:
            left, _, right = row.partition(" - ")
            if left.split()[2] == wanted:
                return right.split()[0] in ("tmpfs", "ramfs")
    return False
