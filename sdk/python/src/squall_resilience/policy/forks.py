"""Locks that another thread may hold at a fork: in the child they are made anew.

For owners that hold their lock while they take patterns' own. Those are taken before a fork (see `squall_resilience.forking`);
these must not be, or a fork and a change of settings would wait for each other. What such an owner was in the middle of is
done again by whoever does it next: it is put in force only at its end.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renewed_in_children"]


class _Owner(Protocol):
    def renew_locks(self) -> None:
        """In a child: nobody holds them."""


_owners: WeakSet[_Owner] = WeakSet()


def renewed_in_children(owner: _Owner) -> None:
    """From now on `owner.renew_locks()` is called in every child; the owner is held weakly."""
    _owners.add(owner)


def _in_child() -> None:
    for owner in list(_owners):
        owner.renew_locks()


os.register_at_fork(after_in_child=_in_child)
