"""What a fork must not break: a lock that another thread held, and slots held by threads that the child does not have.

Each owner of a lock says `survive_forks(self)` once. Before a fork every such lock is taken, so that the child finds what
it guards whole; in the child the lock is free and `forked()` has forgotten the threads that are not there.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from _thread import RLock

__all__ = ["Forking", "survive_forks"]


class Forking(Protocol):
    """Who has a lock and knows what to forget in a child. The lock is never held while another's is taken."""

    lock: RLock

    def forked(self) -> None:
        """Forget, in the child, what only the parent's threads can finish; called with the lock held."""
        ...  # pragma: no cover


_owners: WeakSet[Forking] = WeakSet()
_guard = threading.RLock()
_held: list[Forking] = []


def survive_forks(owner: Forking) -> None:
    """From now on this owner's lock is free in every child; the owner is held weakly."""
    with _guard:
        _owners.add(owner)


def _before() -> None:
    _guard.acquire()
    _held[:] = list(_owners)
    for each in _held:
        each.lock.acquire()


def _in_parent() -> None:
    for each in _held:
        each.lock.release()
    _held.clear()
    _guard.release()


def _in_child() -> None:
    for each in _held:
        each.forked()
    _in_parent()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
