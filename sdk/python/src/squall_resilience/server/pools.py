"""Priority pools: requests of different priority in bounded pools of their own, which can be resized while they serve.

For a plain threaded server, whose front reads requests and hands them on:

    pools = PriorityPools("order", PoolsSettings(pools={
        "high": PoolSettings(workers=50, sla=0.1, waiting=100),
        "default": PoolSettings(workers=200, sla=0.5, waiting=400),
    }))

    def work() -> None:                       # runs in a thread of the pool
        connection.answer(handle(request))

    def refuse(error: Overloaded) -> None:    # instead of `work`: exactly one of the two is called
        connection.answer(503, {"Retry-After": retry_after_header(error)})

    pools.submit(work, priority=request.headers.get("x-priority"), shed=refuse)
    pools.configure(other_settings)           # live: sizes, times, shedding
    pools.close()                             # nobody in any more; who waits is shed, who runs finishes

For a server that has threads or tasks of its own, `with pools.place(priority):` or `async with pools.place(priority):`
waits for a slot (raising Overloaded), and gives it back at the end of the block.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from squall_resilience.events import Event, Listener, Listeners, RejectedCall, everyone
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.server.desk import Desk, Passage, Waiting
from squall_resilience.server.settings import PoolSettings, PoolsSettings
from squall_resilience.server.threads import Kept, Lookout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from squall_resilience.core.pools import Place
    from squall_resilience.errors import Overloaded, Rejected

__all__ = ["Passage", "PoolSettings", "PoolsSettings", "PriorityPools", "Ticket", "retry_after_header"]

logger = logging.getLogger("squall_resilience")


def retry_after_header(error: Rejected) -> str:
    """The value of `Retry-After`: whole seconds, rounded up, at least 1 (RFC 9110, 10.2.3)."""
    return str(max(1, math.ceil(error.retry_after or 1.0)))


class PriorityPools:
    """The pools of one service. Safe to use from threads and tasks at once; a fork's child begins with empty pools.

    Raises MetricNameClash when other pools of the same service's name are in the registry.
    """

    kind = "pool"

    def __init__(
        self,
        service: str,
        settings: PoolsSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        self.dependency = service
        self.listeners = Listeners(*listeners)
        self._desk = Desk(service, settings or PoolsSettings(), clock, self._tell_of)
        self._threads = Kept(f"{service}-worker")
        self._lookout = Lookout(f"{service}-lookout", self._desk.look)
        self._desk.on_fork = (self._threads.forked, self._lookout.forked)
        if registry is not None:
            registry.add(self)

    @property
    def settings(self) -> PoolsSettings:
        """What is in force."""
        return self._desk.core.settings

    def configure(self, settings: PoolsSettings) -> None:
        """Use other sizes and times from now on. Raises SettingsError, and changes nothing, when they are other pools.

        With more workers those who wait start at once; with fewer, the running ones finish.
        """
        self._desk.configure(settings)

    def submit(
        self,
        work: Callable[[], object],
        *,
        priority: str | None = None,
        shed: Callable[[Overloaded], object] | None = None,
        within: float | None = None,
    ) -> Ticket:
        """Run `work()` in a thread of the pool that `priority` names (the default one if none does).

        When it cannot run, now or by the time it should have begun (the pool's SLA, or `within` seconds if that is
        sooner), `shed(error)` is called instead, from this or another thread: it must be quick. Without `shed`, what can
        neither run at once nor wait raises Overloaded. What `work` or `shed` raise is logged.
        """
        job = _Job(self._desk, self._threads, work, shed)
        place, state = self._desk.arrive(job, priority, within)
        if state == "started":
            self._desk.go(place)
        elif state == "waiting":
            self._lookout.keep()
        elif shed is None:
            raise self._desk.error(place)
        else:
            job.refuse(self._desk.error(place))
        return Ticket(self._desk, place)

    def place(self, priority: str | None = None, *, within: float | None = None) -> Passage:
        """A slot of the pool for the length of a `with` or an `async with` block; raises Overloaded when it is shed."""
        return Passage(self._desk, priority, within)

    def close(self) -> None:
        """Let nobody in any more and shed who waits; who runs finishes."""
        self._desk.close()
        self._threads.end()

    def samples(self) -> Iterator[Sample]:
        """Size, use and outcomes of each pool."""
        with self._desk.lock:
            now = [
                (
                    lane.name,
                    (lane.workers, lane.busy, len(lane.waiting)),
                    (lane.served, lane.shed, lane.late),
                )
                for lane in self._desk.core.lanes.values()
            ]
        for name, sizes, outcomes in now:
            labels = (("dependency", self.dependency), ("pool", name))
            for (what, meaning), value in zip(_GAUGES.items(), sizes, strict=True):
                yield Sample(f"resilience_pool_{what}", value, labels, "gauge", meaning)
            for outcome, value in zip(("served", "shed", "late"), outcomes, strict=True):
                yield Sample(
                    "resilience_pool_requests_total", value, (*labels, ("outcome", outcome)), "counter", _REQUESTS
                )

    def tell(self, event: Event) -> None:
        """Hand an event to the listeners of these pools, then to those of the whole process."""
        self.listeners.tell(event)
        everyone.tell(event)

    def _tell_of(self, place: Place[Waiting]) -> None:
        self.tell(RejectedCall(kind=self.kind, dependency=self.dependency, cause=f"{place.lane.name}: {place.cause}"))


_GAUGES = {
    "workers": "Requests that may run at once.",
    "busy": "Requests that run.",
    "waiting": "Requests that wait for a worker.",
}
_REQUESTS = "Requests by outcome: served in time, late (after the pool's SLA), shed (not begun)."


class Ticket:
    """A submitted job."""

    __slots__ = ("_desk", "_place")

    def __init__(self, desk: Desk, place: Place[Waiting]) -> None:
        self._desk, self._place = desk, place

    @property
    def state(self) -> str:
        """One of "waiting", "started", "done", "shed", "left" (cancelled)."""
        return self._place.state

    @property
    def pool(self) -> str:
        """The name of the pool it is in."""
        return self._place.lane.name

    def cancel(self) -> bool:
        """Take it back if it still waits: neither `work` nor `shed` is called then. False when it has started or is done."""
        with self._desk.lock:
            waited = self._place.state == "waiting"
            if waited:
                self._desk.leave(self._place)
        return waited


class _Job:
    """Work for a thread, which goes on with the next one as long as the slot that it frees is given to another job."""

    def __init__(
        self,
        desk: Desk,
        threads: Kept,
        work: Callable[[], object],
        shed: Callable[[Overloaded], object] | None,
    ) -> None:
        self._desk, self._threads, self._work, self._shed = desk, threads, work, shed
        self.place: Place[Waiting] | None = None

    def go(self) -> None:
        self._threads.run(self.run)

    def refuse(self, error: Overloaded) -> None:
        if self._shed is not None:
            try:
                self._shed(error)
            except Exception:
                logger.exception("%s: `shed` failed", error.dependency)

    def run(self) -> None:
        job: _Job | None = self
        while job is not None:
            job = job.one()

    def one(self) -> _Job | None:
        """Do the work; the job that this thread should do next, if there is one."""
        try:
            self._work()
        except Exception:
            logger.exception("%s: a request failed", self._desk.service)
        except BaseException:  # this thread ends, so others take what it would have taken
            self._desk.carry_out(self._desk.finish(self.place))
            raise
        turn = self._desk.finish(self.place)
        following = turn.started[0].what if turn.started else None
        if isinstance(following, _Job):
            del turn.started[0]
        self._desk.carry_out(turn)
        return following if isinstance(following, _Job) else None
