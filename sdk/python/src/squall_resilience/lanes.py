"""Many time-outs of one length on asyncio with one timer: whoever enters first is due first, so a queue is enough.

A timer of the loop costs 1.5 us to set and to cancel; a call that ends in time costs here a place in a queue. The one
timer stands at the head of the queue and moves on when it goes off.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

__all__ = ["Lane", "Place"]

RESOLUTION: Final = 1e-6
"""A timer may go off so much early, in seconds; what is due by then is due."""

GONE_MAX: Final = 256
"""So many places of calls that have ended may stand behind one that has not, unless they are the smaller part."""


class Place:
    """One call in a lane: which task is to be cancelled, and when, in the loop's time."""

    __slots__ = ("due", "fired", "others", "task", "timer")

    def __init__(self, task: asyncio.Task[Any], due: float, others: int) -> None:
        self.task: asyncio.Task[Any] | None = task
        self.due = due
        self.others = others
        self.fired = False
        self.timer: asyncio.TimerHandle | None = None

    def go_off(self) -> None:
        """Its time is over."""
        if self.task is not None:
            self.fired = True
            self.task.cancel()


class Lane:
    """The calls of one pattern, on one loop, that have the same time each."""

    __slots__ = ("_current_task", "_gone", "_loop", "_places", "_time", "_timer", "length")

    def __init__(self, length: float) -> None:
        import asyncio

        self.length = length
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._current_task = asyncio.current_task
        self._timer: asyncio.TimerHandle | None = None
        self._places: deque[Place] = deque()
        self._gone = 0

    def enter(self) -> Place | None:
        """From now on the present task has `length` seconds; None when it is not one of this lane's loop.

        A lane's places are due in the order in which they were taken.
        """
        task = self._current_task(self._loop)
        if task is None:
            return None
        place = Place(task, self._time() + self.length, task.cancelling())
        self._places.append(place)
        if self._timer is None:
            self._timer = self._loop.call_at(place.due, self._go_off)
        return place

    def enter_for(self, seconds: float) -> Place | None:
        """The same for a call that has another time than the lane's others, with a timer of its own."""
        task = self._current_task(self._loop)
        if task is None:
            return None
        place = Place(task, self._time() + seconds, task.cancelling())
        place.timer = self._loop.call_at(place.due, place.go_off)
        return place

    def leave(self, place: Place) -> bool:
        """The call has ended, however: whether this lane has cancelled it, and nobody else has besides."""
        task, place.task = place.task, None
        if place.fired:
            return task is not None and task.uncancel() <= place.others
        places = self._places
        if place.timer is not None:
            place.timer.cancel()
        elif places and places[0] is place:
            places.popleft()
            while places and places[0].task is None:
                places.popleft()
                self._gone -= 1
        else:
            self._gone += 1
            if self._gone > GONE_MAX and self._gone * 2 > len(places):
                self._places = deque(each for each in places if each.task is not None)
                self._gone = 0
        return False

    def _go_off(self) -> None:
        self._timer = None
        now = self._time() + RESOLUTION
        places = self._places
        while places:
            head = places[0]
            if head.task is None:
                self._gone -= 1
            elif head.due <= now:
                head.go_off()
            else:
                self._timer = self._loop.call_at(head.due, self._go_off)
                return
            places.popleft()
