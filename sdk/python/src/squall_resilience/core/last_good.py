"""The last good answer for each key, for so long, and for so many keys."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from squall_resilience.forking import survive_forks

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Kept", "LastGood"]

V = TypeVar("V")


class Kept(NamedTuple, Generic[V]):
    """An answer and how long ago it was given, in seconds."""

    value: V
    age: float


class LastGood(Generic[V]):
    """Answers by key; when there are too many, the one that was renewed the longest ago goes.

    `now` is any clock's seconds. An answer is given while its age is up to `ttl`. One from the future, after a clock
    went back, counts as new if that is by no more than `ttl`, and as expired otherwise: it cannot live on for ever.
    """

    __slots__ = ("__weakref__", "_kept", "keys_max", "lock", "ttl")

    def __init__(self, ttl: float, keys_max: int) -> None:
        self.ttl = ttl
        self.keys_max = keys_max
        self._kept: OrderedDict[Hashable, tuple[V, float]] = OrderedDict()
        self.lock = threading.RLock()
        survive_forks(self)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Hashable, value: V, now: float) -> None:
        """A good answer, now the newest. TypeError when the key has no hash."""
        kept = self._kept
        with self.lock:
            kept[key] = value, now
            kept.move_to_end(key)
            while len(kept) > self.keys_max:
                kept.popitem(last=False)

    def get(self, key: Hashable, now: float) -> Kept[V] | None:
        """The last good answer, if it is not too old. What has expired is forgotten here, this key's and the oldest."""
        with self.lock:
            self._forget(now)
            found = self._kept.get(key)
            if found is None:
                return None
            value, at = found
            if not self._fresh(now - at):
                del self._kept[key]
                return None
            return Kept(value, max(0.0, now - at))

    def clear(self) -> None:
        """Forget all answers."""
        with self.lock:
            self._kept.clear()

    def forked(self) -> None:
        """A child goes on with the answers of its parent."""

    def _fresh(self, age: float) -> bool:
        return -self.ttl <= age <= self.ttl

    def _forget(self, now: float) -> None:
        while self._kept:
            oldest = next(iter(self._kept))
            if self._fresh(now - self._kept[oldest][1]):
                return
            del self._kept[oldest]
