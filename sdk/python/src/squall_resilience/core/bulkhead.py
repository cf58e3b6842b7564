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

    `enter` and `leave` are one step each (see `interpreter`), all else happens under a lock. That nobody waits while a slot is
    free takes both sides: who leaves looks whether somebody waits after the slot is free, and calls `fill` then; who has
    queued calls `fill` as well, for a slot may have become free meanwhile.
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

    def leave(self, token: int) -> bool:
        """Give a slot back; whether somebody waits, so that `fill` is needed."""
        if token == self.generation:
            self.in_use -= 1
            if self.waiting:
                return True
        return False

    def fill(self) -> list[W]:
        """Give the free slots to who waits, in order of arrival; those who were given one."""
        given: list[W] = []
        while self.waiting and self.in_use < self.limit:
            self.in_use += 1
            given.append(self.waiting.popitem(last=False)[0])
        return given

    def resize(self, limit: int, room: int) -> list[W]:
        """Other numbers from now on. Who runs and who waits stays; with more slots, who waits gets them (returned)."""
        self.limit, self.room = limit, room
        return self.fill()

    def forget(self) -> None:
        """Nobody holds a slot and nobody waits (in the child of a fork)."""
        self.in_use = 0
        self.waiting.clear()
        self.generation += 1
