"""libbpf through ctypes, as far as it is needed: open an object, relocate it to this kernel, load it.

libbpf >= 1.0 is the system's own library; `SQUALL_LIBBPF` names another. Its messages are kept, because a refusal by
the verifier without its reason is of no use to anybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any

from squall.errors import SquallError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BpfError", "library", "messages"]

_MESSAGES_MOST = 400
_WARN = 0
"""libbpf_print_level: LIBBPF_WARN."""


class BpfError(SquallError):
    """The kernel or libbpf refused; `errno` says which way, the text says what and why as far as it is known."""

    def __init__(self, what: str, number: int, log: str = "") -> None:
        name = errno.errorcode.get(number, str(number))
        reason = f": {log}" if log else ""
        super().__init__(f"{what}: {os.strerror(number)} ({name}){reason}")
        self.errno = number
        self.log = log


_said: deque[str] = deque(maxlen=_MESSAGES_MOST)
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_void_p)),
    "bpf_object__load": (ctypes.c_int, (ctypes.c_void_p,)),
    "bpf_object__close": (None, (ctypes.c_void_p,)),
    "bpf_object__next_program": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p)),
    "bpf_object__next_map": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p)),
    "bpf_program__name": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "bpf_program__fd": (ctypes.c_int, (ctypes.c_void_p,)),
    "bpf_program__set_autoload": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_bool)),
    "bpf_program__set_attach_target": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)),
    "bpf_map__name": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "bpf_map__fd": (ctypes.c_int, (ctypes.c_void_p,)),
    "bpf_map__key_size": (ctypes.c_uint32, (ctypes.c_void_p,)),
    "bpf_map__value_size": (ctypes.c_uint32, (ctypes.c_void_p,)),
    "bpf_map__type": (ctypes.c_int, (ctypes.c_void_p,)),
    "bpf_map__set_max_entries": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint32)),
    "bpf_map__set_autocreate": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_bool)),
}


@cache
def library() -> ctypes.CDLL:
    """libbpf, ready to be called; BpfError (ENOENT) where there is none, or one older than 1.0."""
    path = os.environ.get("SQUALL_LIBBPF", "libbpf.so.1")
    try:
        found = ctypes.CDLL(path, use_errno=True)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise BpfError(
            f"libbpf 1.0 or newer cannot be used ({error}); Debian's package is libbpf1", errno.ENOENT
        ) from None
    found.libbpf_set_print.restype = ctypes.c_void_p
    found.libbpf_set_print.argtypes = [ctypes.c_void_p]
    found.libbpf_set_print(ctypes.cast(_keep, ctypes.c_void_p))
    return found


_libc = ctypes.CDLL(None)
_libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]


def _keep_message(level: int, text: bytes, values: int) -> int:
    """Keep a message. A va_list is handed on as a pointer, as the ABIs of x86-64 and arm64 pass it."""
    if level > _WARN:
        return 0
    buffer = ctypes.create_string_buffer(1 << 20)
    _libc.vsnprintf(buffer, len(buffer), text, values)
    _said.extend(buffer.value.decode(errors="replace").splitlines())
    return 0


_keep = _PRINT(_keep_message)
"""Held here for as long as libbpf may call it."""


@contextlib.contextmanager
def messages() -> Iterator[deque[str]]:
    """The warnings that libbpf gives from here on, last ones first lost."""
    _said.clear()
    yield _said
