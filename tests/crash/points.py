"""Where a run can die: every place at which its journal or the machine changes, found by watching from outside the product.

`watch(hit)` wraps the system calls and the steps of Squall in this process so that `hit(name)` is called right before
and right after each; nothing in the product knows of it.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["watch"]


def watch(hit: Callable[[str], None]) -> None:
    """Report every change from now on."""
    from squall.actions import ACTIONS
    from squall.recovery.guard import Guard
    from squall.recovery.journal import Journal
    from squall.recovery.state import State

    _wrap(os, "write", hit, lambda fd, *_: _is_journal(fd))
    _wrap(os, "fdatasync", hit, _is_journal)
    for name in ("mkdir", "rmdir", "unlink", "ftruncate"):
        _wrap(os, name, hit)
    _wrap(signal, "pidfd_send_signal", hit)
    _wrap(resource, "prlimit", hit, lambda *arguments: len(arguments) > 2)
    _wrap(subprocess.Popen, "__init__", hit, name="spawn")
    _wrap(socket.socket, "sendall", hit, name="sendall")
    _wrap(Journal, "create", hit)
    _wrap(State, "mark_open", hit)
    _wrap(State, "mark_closed", hit)
    _wrap(Guard, "start", hit)
    _wrap(Guard, "farewell", hit)
    for kind, action in ACTIONS.items():
        for method in ("prepare", "do", "undo", "verify"):
            if method in vars(action):  # a step that takes it over from another kind is named by its own
                _wrap(action, method, hit, name=f"{kind}.{method}", kind=kind)


def _is_journal(fd: int, *_: object) -> bool:
    try:
        return Path(f"/proc/self/fd/{fd}").readlink().name == "journal.jsonl"
    except OSError:
        return False


def _wrap(
    owner: Any,
    attribute: str,
    hit: Callable[[str], None],
    when: Callable[..., bool] = lambda *_: True,
    name: str = "",
    kind: str = "",
) -> None:
    original = vars(owner).get(attribute) or getattr(owner, attribute)
    is_class_method = isinstance(original, classmethod)
    call = original.__func__ if is_class_method else original
    title = name or f"{getattr(owner, '__name__', '')}.{attribute}"

    @functools.wraps(call)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if not when(*arguments):
            return call(*arguments, **named)
        said = f"{arguments[0].kind}.{attribute}" if kind else title
        hit(f"before {said}")
        result = call(*arguments, **named)
        hit(f"after {said}")
        return result

    setattr(owner, attribute, classmethod(wrapped) if is_class_method else wrapped)
