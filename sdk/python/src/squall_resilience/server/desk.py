"""Where requests get their places: the core of the pools under a lock, and what comes of each step carried out."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol, Self

from squall_resilience.core.pools import Place, Pools, Turn
from squall_resilience.errors import Overloaded
from squall_resilience.forking import survive_forks
from squall_resilience.running import ThreadWaiter, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from squall_resilience.server.settings import PoolsSettings

__all__ = ["Desk", "Passage", "Waiting"]

logger = logging.getLogger("squall_resilience")

_WHY = {
    "": "it was given up while it waited",
    "full": "all its workers are busy and its queue is full",
    "waited": "it waited longer than its pool's time",
    "pressure": "requests of higher priority wait too long",
    "closed": "the service is ending",
    "threads": "the system has no thread left",
}


class Waiting(Protocol):
    """What stands in a pool: a job, or somebody who waits for a slot. Either method is called once, or none."""

    place: Place[Waiting] | None

    def go(self) -> None:
        """It has a slot now; RuntimeError when it cannot run all the same."""

    def refuse(self, error: Overloaded) -> None:
        """It gets none."""


class Desk:
    """The core under its lock. What is told or woken is told and woken after the lock is given back."""

    def __init__(
        self,
        service: str,
        settings: PoolsSettings,
        clock: Callable[[], float],
        told: Callable[[Place[Waiting]], None],
    ) -> None:
        self.service, self.clock = service, clock
        self.lock = threading.RLock()
        self.core: Pools[Waiting] = Pools(settings)
        self._told = told
        self.on_fork: tuple[Callable[[], None], ...] = ()
        """What else is forgotten in the child of a fork."""
        survive_forks(self)

    def forked(self) -> None:
        """Forget what runs and waits in the parent."""
        self.core.forget()
        for forget in self.on_fork:
            forget()

    def configure(self, settings: PoolsSettings) -> None:
        """Other sizes and times."""
        with self.lock:
            turn = self.core.configure(settings, self.clock())
        self.carry_out(turn)

    def arrive(self, what: Waiting, priority: str | None, within: float | None) -> tuple[Place[Waiting], str]:
        """A place and what it was when it was given: "started" and "waiting" go on from there at once, also elsewhere.

        One that is "shed" has been told; the caller refuses it or raises `error`.
        """
        name = priority.strip().lower() if priority else None
        with self.lock:
            place = what.place = self.core.arrive(name, what, self.clock(), within)
            state = place.state
        if state == "shed":
            self._told(place)
        return place, state

    def finish(self, place: Place[Waiting] | None) -> Turn[Waiting]:
        """It has been answered; the turn is the caller's to carry out."""
        with self.lock:
            return self.core.finish(place, self.clock()) if place is not None else Turn()

    def leave(self, place: Place[Waiting]) -> None:
        """It goes without an answer."""
        with self.lock:
            turn = self.core.leave(place, self.clock())
        self.carry_out(turn)

    def give_up(self, place: Place[Waiting]) -> None:
        """It has waited long enough, unless it has just been started."""
        with self.lock:
            shed = self.core.give_up(place)
        if shed:
            self._told(place)

    def close(self) -> None:
        """Nobody in any more."""
        with self.lock:
            turn = self.core.close()
        self.carry_out(turn)

    def look(self) -> float | None:
        """Shed who waited too long; seconds until the next look, None when nobody waits."""
        with self.lock:
            now = self.clock()
            turn = self.core.overdue(now)
            wait = self.core.next_expiry(now)
            soonest = min(lane.sla for lane in self.core.lanes.values())  # one may come that expires before
        self.carry_out(turn)
        return None if wait is None else min(wait, soonest)

    def carry_out(self, turn: Turn[Waiting]) -> None:
        """Start and tell whom a step concerns."""
        for place in turn.shed:
            self._told(place)
            place.what.refuse(self.error(place))
        for place in turn.started:
            self.go(place)

    def go(self, place: Place[Waiting]) -> None:
        """Start it; shed it when that is not possible."""
        try:
            place.what.go()
        except RuntimeError:  # can't start new thread
            logger.exception("%s: a request of pool %s cannot start", self.service, place.lane.name)
            with self.lock:
                turn = self.core.turn_back(place, self.clock())
            turn.shed.append(place)
            self.carry_out(turn)

    def error(self, place: Place[Waiting]) -> Overloaded:
        """Why it was shed."""
        return Overloaded(
            f"{self.service}: a request of priority {place.lane.name!r} is shed: {_WHY[place.cause]}",
            dependency=self.service,
            retry_after=place.retry_after,
        )


class Passage:
    """One block's slot in a pool, for `with` or `async with`."""

    __slots__ = ("_came", "_desk", "_place", "_priority", "_waiter", "_within")

    def __init__(self, desk: Desk, priority: str | None, within: float | None) -> None:
        self._desk, self._priority, self._within = desk, priority, within
        self._place: Place[Waiting] | None = None
        self._waiter: Waiter | None = None
        self._came = False

    @property
    def pool(self) -> str:
        """The name of the pool; empty before the block."""
        return self._place.lane.name if self._place else ""

    @property
    def waiting(self) -> bool:
        """Whether it stands in line."""
        return self._place is not None and self._place.state == "waiting"

    @property
    def entered(self) -> bool:
        """Whether it has its slot."""
        return self._place is not None and self._place.state == "started"

    def abandon(self) -> None:
        """Give up whatever it has, its place in line or its slot; who waits for it gets Overloaded. From any thread."""
        if self._place is not None:
            self._desk.leave(self._place)
            if self._waiter is not None:
                self._waiter.wake()

    def arrive(self) -> Place[Waiting]:
        """Come to the pool, within a task that will wait; `async with` does it if nobody has before."""
        self._waiter = waiter = Waiter()
        place = self._stand(waiter)
        self._came = True
        return place

    def __enter__(self) -> Self:
        waiter = ThreadWaiter()
        place = self._stand(waiter)
        if place.state == "waiting":
            try:
                waiter.wait(place.expires - place.arrived)
            except BaseException:
                self._desk.leave(place)
                raise
        return self._settle(place)

    async def __aenter__(self) -> Self:
        if self._place is None or not self._came:
            self.arrive()
        self._came = False  # a second block with the same passage is refused
        await self.wait()
        return self

    async def wait(self) -> None:
        """Wait for the slot, after `arrive`; harmless when it is there already."""
        place, waiter = self._place, self._waiter
        if place is None or waiter is None:
            raise RuntimeError("arrive first")
        if place.state == "waiting":
            try:
                await waiter.wait(place.expires - place.arrived)
            except BaseException:  # cancelled: whether it waits or was just given a slot, it gives back what it has
                self._desk.leave(place)
                raise
        self._settle(place)

    def _stand(self, waiter: ThreadWaiter | Waiter) -> Place[Waiting]:
        if self._place is not None:
            raise RuntimeError("a place is for one block: ask for another one with pools.place()")
        self._place, _ = self._desk.arrive(_Caller(waiter), self._priority, self._within)
        return self._place

    def _settle(self, place: Place[Waiting]) -> Self:
        if place.state == "waiting":
            self._desk.give_up(place)
        if place.state != "started":
            raise self._desk.error(place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._place is None:
            return
        if kind is None or issubclass(kind, Exception):
            self._desk.carry_out(self._desk.finish(self._place))
        else:  # cancelled, or the process ends: nobody got an answer
            self._desk.leave(self._place)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class _Caller:
    """Somebody who waits for a slot."""

    __slots__ = ("_waiter", "place")

    def __init__(self, waiter: ThreadWaiter | Waiter) -> None:
        self._waiter = waiter
        self.place: Place[Waiting] | None = None

    def go(self) -> None:
        self._waiter.wake()

    def refuse(self, error: Overloaded) -> None:  # noqa: ARG002 - it sees for itself, when woken
        self._waiter.wake()
