"""Which request runs now, which waits, which is shed: pools of slots in order of priority, without a thread or a clock.

Every place goes one way: waiting -> started -> done, or waiting -> shed, or -> left; each step happens once, whatever
happens at the same time. A `Turn` is for the caller to carry out: the started ones may go, the shed ones are told.

Shedding by pressure follows DAGOR (Zhou et al., "Overload Control for Scaling WeChat Microservices", 2018) in its two
ideas: overload is seen in how long requests wait, not in how long they take (that may be somebody else's fault), and
it is answered at the door, lowest priority first. The step up is larger than the step down, as there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from squall_resilience.errors import Problem, SettingsError

if TYPE_CHECKING:
    from squall_resilience.server.settings import PoolsSettings

__all__ = ["Lane", "Place", "Pools", "Turn"]

T = TypeVar("T")

SMOOTHING = 0.1
"""Weight of the newest running time in the mean from which a shed request's `retry_after` is guessed."""
STRAINED_WAIT = 0.5
"""A request is strained when it waited for more than this share of its pool's SLA, or was shed."""
STRAINED_SHARE = 0.05
"""Pressure rises after a window in which more than this share of the higher pools' requests were strained ..."""
STRAINED_MIN = 2
"""... and at least so many."""
STEP_UP, STEP_DOWN = 0.25, 0.05


@dataclass(eq=False)
class Lane(Generic[T]):
    """One pool: its slots, those who wait in order of arrival, and its counts."""

    name: str
    rank: int
    """0 is the highest priority."""
    workers: int
    sla: float
    room: int
    """How many may wait."""
    busy: int = 0
    waiting: OrderedDict[int, Place[T]] = field(default_factory=OrderedDict)
    served: int = 0
    late: int = 0
    shed: int = 0
    running_time: float = 0.0
    """Smoothed seconds from start to end of one request."""
    credit: float = 0.0
    """Fractions of a request owed to the shedding by pressure: it sheds evenly, not by dice."""

    def retry_after(self) -> float:
        """When one more request might start, guessed from what runs and waits; in seconds, at least the pool's SLA."""
        return max(self.sla, self.running_time * (len(self.waiting) + 1) / self.workers)


@dataclass(eq=False, slots=True)
class Place(Generic[T]):
    """One request's place in a pool."""

    lane: Lane[T]
    what: T
    """The caller's own: what to run, or whom to wake."""
    arrived: float
    expires: float
    """If it has not started by then, it is shed."""
    state: Literal["waiting", "started", "done", "shed", "left"] = "waiting"
    started: float = 0.0
    generation: int = 0
    """Of the process: what a fork left behind in the parent gives back nothing in the child."""
    cause: str = ""
    """Why it was shed: "full", "waited", "pressure", "closed", "threads"."""
    retry_after: float = 0.0


@dataclass
class Turn(Generic[T]):
    """What came out of one step."""

    started: list[Place[T]] = field(default_factory=list)
    shed: list[Place[T]] = field(default_factory=list)


class Pools(Generic[T]):
    """The pools of one service, highest priority first. Times are seconds of one clock that should not, but may, jump."""

    def __init__(self, settings: PoolsSettings) -> None:
        self.settings = settings
        self.lanes: dict[str, Lane[T]] = {
            name: Lane(name, rank, pool.workers, pool.sla, pool.waiting)
            for rank, (name, pool) in enumerate(settings.pools.items())
        }
        self.pressure = 0.0
        """How much of the lower pools' traffic is shed at the door: 1.5 is all of the lowest and half of the next."""
        self.closed = False
        self._busy = self._generation = 0
        self._window_began: float | None = None
        self._seen = self._strained = 0

    def configure(self, settings: PoolsSettings, now: float) -> Turn[T]:
        """Take other sizes, for the same pools. More workers start who waits; with fewer, the running ones finish."""
        if set(settings.pools) != set(self.lanes):
            wrong = Problem("pools", f"{', '.join(settings.pools)}", f"resized live only: {', '.join(self.lanes)}")
            raise SettingsError((wrong,), source="pools")
        self.settings = settings
        self.lanes = {name: self.lanes[name] for name in settings.pools}
        for rank, (lane, pool) in enumerate(zip(self.lanes.values(), settings.pools.values(), strict=True)):
            lane.rank, lane.workers, lane.sla, lane.room = rank, pool.workers, pool.sla, pool.waiting
        if not settings.shedding:
            self.pressure = 0.0
        return self._fill(now)

    def arrive(self, name: str | None, what: T, now: float, within: float | None = None) -> Place[T]:
        """A request comes: its place is started, waiting or shed. `within` shortens the time it may wait, in seconds."""
        lane = self.lanes.get(name or "") or self.lanes[self.settings.default]
        self._judge(now)
        patience = lane.sla if within is None else max(0.0, min(lane.sla, within))
        place = Place(lane, what, now, now + patience, generation=self._generation)
        if self.closed:
            self._shed(place, "closed")
        elif self._turned_away(lane):
            self._shed(place, "pressure")
        elif lane.busy < lane.workers and not lane.waiting and self._room_in_all():
            self._start(place, now)
        elif len(lane.waiting) < lane.room:
            lane.waiting[id(place)] = place
        else:
            self._shed(place, "full")
        return place

    def finish(self, place: Place[T], now: float) -> Turn[T]:
        """A request has been answered; harmless when it was not running (any more)."""
        if place.state != "started":
            return Turn()
        lane = place.lane
        took = max(0.0, now - place.started)
        lane.running_time = (
            took if not lane.running_time else lane.running_time + SMOOTHING * (took - lane.running_time)
        )
        if now - place.arrived > lane.sla:
            lane.late += 1
        else:
            lane.served += 1
        self._vacate(place, "done")
        return self._fill(now)

    def leave(self, place: Place[T], now: float) -> Turn[T]:
        """A request goes without an answer (its client is gone): it gives back its slot, or its place in the queue."""
        if place.state == "waiting":
            del place.lane.waiting[id(place)]
            place.state = "left"
        elif place.state == "started":
            self._vacate(place, "left")
            return self._fill(now)
        return Turn()

    def give_up(self, place: Place[T], cause: str = "waited") -> bool:
        """Shed one that waits; False when it does not wait (any more)."""
        if place.state != "waiting":
            return False
        del place.lane.waiting[id(place)]
        self._shed(place, cause)
        return True

    def turn_back(self, place: Place[T], now: float) -> Turn[T]:
        """One that was started cannot run after all: it is shed, and gives back its slot."""
        if place.state != "started":
            return Turn()
        self._vacate(place, "left")
        self._shed(place, "threads")
        return self._fill(now)

    def overdue(self, now: float) -> Turn[T]:
        """Shed all that waited too long."""
        late = [place for lane in self.lanes.values() for place in lane.waiting.values() if self._expired(place, now)]
        for place in late:
            self.give_up(place)
        return Turn(shed=late)

    def next_expiry(self, now: float) -> float | None:
        """Seconds until the first that waits has waited too long; None when nobody waits."""
        waiting = [place.expires for lane in self.lanes.values() for place in lane.waiting.values()]
        patience = max(lane.sla for lane in self.lanes.values())  # also when the clock went back meanwhile
        return min(patience, max(0.0, min(waiting) - now)) if waiting else None

    def close(self) -> Turn[T]:
        """Let nobody in any more, and send away who waits."""
        self.closed = True
        waiting = [place for lane in self.lanes.values() for place in lane.waiting.values()]
        for place in waiting:
            self.give_up(place, "closed")
        return Turn(shed=waiting)

    def forget(self) -> None:
        """Nobody runs and nobody waits (in the child of a fork); the counts stay."""
        for lane in self.lanes.values():
            for place in lane.waiting.values():
                place.state = "left"
            lane.waiting.clear()
            lane.busy = 0
        self._busy = 0
        self._generation += 1

    def _room_in_all(self) -> bool:
        return self.settings.total is None or self._busy < self.settings.total

    def _start(self, place: Place[T], now: float) -> None:
        place.state, place.started = "started", now
        place.lane.busy += 1
        self._busy += 1
        self._observe(place.lane, strained=now - place.arrived > STRAINED_WAIT * place.lane.sla)

    def _vacate(self, place: Place[T], state: Literal["done", "left"]) -> None:
        place.state = state
        if place.generation == self._generation:
            place.lane.busy -= 1
            self._busy -= 1

    def _shed(self, place: Place[T], cause: str) -> None:
        place.state, place.cause = "shed", cause
        place.retry_after = place.lane.retry_after()
        place.lane.shed += 1
        if cause in {"full", "waited"}:
            self._observe(place.lane, strained=True)

    def _fill(self, now: float) -> Turn[T]:
        """Give free slots to who waits: the highest pool first, within a pool in order of arrival."""
        turn: Turn[T] = Turn()
        for lane in self.lanes.values():
            while lane.waiting and lane.busy < lane.workers and self._room_in_all():
                place = next(iter(lane.waiting.values()))
                if self._expired(place, now):
                    self.give_up(place)
                    turn.shed.append(place)
                else:
                    lane.waiting.popitem(last=False)
                    self._start(place, now)
                    turn.started.append(place)
        return turn

    @staticmethod
    def _expired(place: Place[T], now: float) -> bool:
        if now < place.arrived:  # the clock went back: it waits as if it had just come, not until the clock is back
            place.expires, place.arrived = now + (place.expires - place.arrived), now
        return now >= place.expires

    def _turned_away(self, lane: Lane[T]) -> bool:
        lower = len(self.lanes) - 1 - lane.rank
        share = min(1.0, max(0.0, self.pressure - lower))
        if not share or not lane.rank:  # the highest pool is never turned away at the door
            return False
        lane.credit += share
        if lane.credit < 1.0:
            return False
        lane.credit -= 1.0
        return True

    def _observe(self, lane: Lane[T], *, strained: bool) -> None:
        if lane.rank < len(self.lanes) - 1:
            self._seen += 1
            self._strained += strained

    def _judge(self, now: float) -> None:
        """At the end of a window: do the higher pools wait too long, so that lower ones have to stay out?"""
        if self._window_began is None or now < self._window_began:
            self._window_began = now
        windows = (now - self._window_began) / self.settings.window
        if windows < 1:
            return
        strained = self._strained >= STRAINED_MIN and self._strained > STRAINED_SHARE * self._seen
        if self.settings.shedding and strained:
            self.pressure = min(len(self.lanes) - 1.0, self.pressure + STEP_UP)
        else:
            self.pressure = max(0.0, self.pressure - STEP_DOWN)
        quiet = min(windows - 1, 1e6)  # after a pause there were windows in which nothing was strained
        self.pressure = max(0.0, self.pressure - STEP_DOWN * int(quiet))
        self._window_began, self._seen, self._strained = now, 0, 0
