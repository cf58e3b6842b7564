"""Which calls a half-open breaker lets through, and what they prove."""

from __future__ import annotations

from typing import Literal

__all__ = ["Trials"]

_WHOLE = 1_000_000


class Trials:
    """The share of the calls that are tried while a breaker is half-open, and how they went.

    The share is counted in millionths, as whole numbers: of the first n calls it is n times the share, rounded up, that
    are let through while no bound is in the way. A turn that finds all places taken is kept for the next call; more than
    one is not kept, so that no burst follows.
    """

    __slots__ = ("_credit", "lost", "under_way", "won")

    def __init__(self) -> None:
        self._credit: int | None = None
        self.won = self.lost = 0
        self.under_way: dict[int, float] = {}
        """When each trial began, by its number, oldest first."""

    def offer(self, number: int, now: float, *, share: float, at_once: int, in_all: int) -> bool:
        """Whether the call that comes now is tried; the first one is."""
        step = round(share * _WHOLE)
        self._credit = _WHOLE if self._credit is None else self._credit + step
        if self._credit < _WHOLE:
            return False
        under_way = len(self.under_way)
        if under_way >= at_once or self.won + self.lost + under_way >= in_all:
            self._credit = _WHOLE
            return False
        self._credit -= _WHOLE
        self.under_way[number] = now
        return True

    def ended(self, number: int, *, won: bool | None) -> bool:
        """A trial came back, None: without having said anything. Whether it still was waited for."""
        if self.under_way.pop(number, None) is None:
            return False
        if won is not None:
            self.won += won
            self.lost += not won
        return True

    def give_up(self, now: float, patience: float) -> None:
        """Count trials as lost that have not come back for so many seconds."""
        for number, began in list(self.under_way.items()):
            if now < began:  # the clock went back
                self.under_way[number] = now
            elif now - began >= patience:
                self.ended(number, won=False)

    def decided(self, *, in_all: int, lost_share_max: float) -> Literal["won", "lost"] | None:
        """What is proven: "lost" as soon as it cannot be won any more, "won" as soon as it cannot be lost."""
        lost_max = int(lost_share_max * in_all + 1e-9)
        if self.lost > lost_max:
            return "lost"
        return "won" if self.won >= in_all - lost_max else None
