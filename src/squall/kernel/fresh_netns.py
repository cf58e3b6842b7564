"""A network namespace that exists for one question: things are really tried in it, and it goes with all that was made."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["tried"]

T = TypeVar("T")
_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def tried(call: Callable[[], T]) -> T:
    """What `call` returns in a thread of its own, alone in a new network namespace; what it raises is raised.

    OSError where no namespace can be made (not root).
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            if _libc.unshare(_CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"no network namespace can be made: {os.strerror(number)}")  # noqa: TRY301
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, name="squall-fresh-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
