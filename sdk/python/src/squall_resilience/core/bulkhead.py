"""So many slots, and so many who wait for one in order of arrival: a state machine without a thread or a clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Slots"]

W = TypeVar("W")


class Slots(Generic[W]):
    """Slots that are taken and given back, and those who wait for one.

    Who takes a slot gets a token, the generation it belongs to (never 0), and gives that back: a slot that the child
    of a fork inherited from its parent's threads is not there to be given back. Nobody overtakes one who waits.
    """

    __slots__ = ("generation", "in_use", "limit", "room", "waiting")

    def __init__(self, limit: int, room: int) -> None:
        self.limit = limit
        self.room = room
        """How many may wait."""
        self.in_use = 0
        self.generation = 1
        self.waiting: OrderedDict[W, None] = OrderedDict()

    def enter(self) -> int:
        """A slot's token, or 0 when none is free or others wait already."""
        if self.in_use < self.limit and not self.waiting:
            self.in_use += 1
            return self.generation
        return 0

    def queue(self, waiter: W) -> bool:
        """Stand in line; False when as many wait as may."""
        if len(self.waiting) >= self.room:
            return False
        self.waiting[waiter] = None
        return True

    def withdraw(self, waiter: W) -> bool:
        """Stand in line no more; False when it does not, because it was given a slot (which it then holds)."""
        if waiter not in self.waiting:
            return False
        del self.waiting[waiter]
        return True

    def leave(self, token: int) -> list[W]:
        """Give a slot back; those who have been given one by that."""
        if token != self.generation:
            return []
        self.in_use -= 1
        return self._fill() if self.waiting else []

    def resize(self, limit: int, room: int) -> list[W]:
        """Other numbers from now on. Who runs and who waits stays; with more slots, who waits gets them (returned)."""
        self.limit, self.room = limit, room
        return self._fill()

    def forget(self) -> None:
        """Nobody holds a slot and nobody waits (in the child of a fork)."""
        self.in_use = 0
        self.waiting.clear()
        self.generation += 1

    def _fill(self) -> list[W]:
        given: list[W] = []
        while self.waiting and self.in_use < self.limit:
            self.in_use += 1
            given.append(self.waiting.popitem(last=False)[0])
        return given
