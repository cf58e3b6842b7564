"""Becomes another program that ends with the process that started it; run by `launch`, with the standard library only.

    squall.lab.tied PARENT [--read-only] PROGRAM ARGUMENTS...

With --read-only the program sees the machine's files where no write is possible: in a mount namespace of its own in
which every mount is read-only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from typing import NoReturn

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Tie, shield, exec; the exit status is 127 with a line on standard error when that cannot be."""
    _, parent, *command = sys.argv
    try:
        _tie(int(parent))
        if command[0] == "--read-only":
            del command[0]
            _only_read()
        os.execv(command[0], command)  # noqa: S606 - there is no shell, and none is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error}\n")
    sys.exit(127)


def _tie(parent: int) -> None:
    """End when the thread of `parent` that started this process ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        raise OSError("the process that asked for it is gone")


def _only_read() -> None:
    """A mount namespace of one's own, in which nothing can be written."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, len(attributes))
    _check(result, "mount_setattr")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
