"""The folder in which a middleware and Squall meet, and what in it may be believed.

Nothing in here raises for what somebody else has put there: what cannot be believed is as if it were not there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "Unsafe", "check_folder", "control_folder", "halted", "read"]

FOLDER_VARIABLE = "SQUALL_CHAOS_DIR"
_DEFAULT = "/run/squall/chaos"
_HALT = "HALT"


class Unsafe(Exception):
    """Somebody else could have written it; the message says which rule it breaks."""


def control_folder() -> Path:
    """Where this process and Squall meet."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT)


def halted(folder: Path) -> bool:
    """Whether something called HALT is there: whoever put it there meant it, however unsafe the folder."""
    try:
        os.lstat(folder / _HALT)
    except OSError:
        return False
    return True


def check_folder(folder: Path) -> None:
    """Raise Unsafe for a folder that others could write to, OSError for one that is not there."""
    found = os.stat(folder)  # noqa: PTH116 - a link to a folder that is safe itself is as good
    if not stat.S_ISDIR(found.st_mode):
        raise Unsafe(f"{folder} is no folder")
    if found.st_uid not in {0, os.geteuid()}:
        raise Unsafe(f"{folder} belongs to user {found.st_uid}, neither to root nor to this process")
    if found.st_mode & stat.S_IWOTH:
        raise Unsafe(f"{folder} is writable by all")


def read(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """What a file holds, and its state. Unsafe for one that others could have written or that is longer than `most`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Unsafe(f"{path} is no plain file")
        if found.st_uid not in {0, os.geteuid()}:
            raise Unsafe(f"{path} belongs to user {found.st_uid}, neither to root nor to this process")
        if found.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            raise Unsafe(f"{path} is writable by its group or by all")
        data = os.read(fd, most + 1)
        if len(data) > most:
            raise Unsafe(f"{path} is longer than {most} bytes")
        return data, found
    finally:
        os.close(fd)
