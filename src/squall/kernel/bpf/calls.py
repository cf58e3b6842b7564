"""bpf(2), as far as libbpf is not needed for it: maps, links, and what is loaded. See linux/bpf.h for the attributes."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from squall.kernel.bpf.library import BpfError

__all__ = [
    "MAP_DELETE",
    "MAP_LOOKUP",
    "MAP_NEXT_KEY",
    "MAP_UPDATE",
    "bpf",
    "link_create",
    "link_update",
    "map_call",
    "raw_tracepoint_open",
]

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_SIZE = 128
"""Attributes are zero beyond what is set; the kernel takes a longer block than it knows when the rest is zero."""

MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY = 1, 2, 3, 4
_RAW_TRACEPOINT_OPEN, _LINK_CREATE, _LINK_UPDATE = 17, 28, 29

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Call the kernel: the result and the attributes as it left them; OSError when it refuses."""
    block = ctypes.create_string_buffer(attributes, _SIZE)
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) is not known on {platform.machine()}")
    result = _libc.syscall(ctypes.c_long(number), ctypes.c_long(command), block, ctypes.c_long(_SIZE))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result), block.raw


def map_call(
    command: int, fd: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None, flags: int = 0
) -> None:
    """One of the MAP_ commands on the map behind a descriptor; OSError when the kernel refuses."""
    held = ctypes.create_string_buffer(key, len(key)) if key is not None else None
    bpf(
        command,
        struct.pack(
            "<IIQQQ",
            fd,
            0,
            ctypes.addressof(held) if held is not None else 0,
            ctypes.addressof(value) if value is not None else 0,
            flags,
        ),
    )


def link_create(program: int, target: int, attach_type: int, flags: int = 0, more: bytes = b"") -> int:
    """Attach a program to what a descriptor (or an interface index) names; the link's descriptor, which holds it.

    `more` is what follows the flags in the attributes, for the types that have it. BpfError when the kernel refuses.
    """
    try:
        fd, _ = bpf(_LINK_CREATE, struct.pack("<IIII", program, target, attach_type, flags) + more)
    except OSError as error:
        raise BpfError("the program could not be attached", error.errno or errno.EIO) from error
    return fd


def link_update(link: int, program: int) -> None:
    """Put another program in the place of a link's, without a gap."""
    bpf(_LINK_UPDATE, struct.pack("<III", link, program, 0))


def raw_tracepoint_open(program: int, name: bytes | None = None) -> int:
    """Attach a tracing or LSM program where it was loaded for; the descriptor holds it. BpfError when refused."""
    held = ctypes.create_string_buffer(name) if name is not None else None
    try:
        fd, _ = bpf(
            _RAW_TRACEPOINT_OPEN, struct.pack("<QI", ctypes.addressof(held) if held is not None else 0, program)
        )
    except OSError as error:
        raise BpfError("the program could not be attached", error.errno or errno.EIO) from error
    return fd
