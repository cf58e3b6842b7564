"""A hedged call that blocks: its copies run in threads, its caller waits for the first answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal, TypeVar

from squall_resilience import deadline
from squall_resilience.core.hedge import Race
from squall_resilience.running import ThreadWaiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.hedge import Hedge

__all__ = ["hedged_in_threads"]

R = TypeVar("R")


def hedged_in_threads(of: Hedge, call: Callable[[], R]) -> R:
    """Make the call; without a thread to be had, in this one and once.

    DeadlineExceeded at the inherited deadline: the caller is let go, what it has begun goes on in its threads.
    """
    of.budget.calls += 1
    delay, start = of.latencies.delay(of.settings), of.clock()
    race: Race[R] = Race()
    lock, ended = threading.Lock(), ThreadWaiter()

    def copy(name: Literal["first", "second"]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            with lock:
                race.failed(name, error)
        else:
            if name == "first":
                of.latencies.add(of.clock() - start)
            with lock:
                race.answered(name, result)
        if race.over:
            ended.wake()

    if not of.workers.give(lambda: copy("first")):
        copy("first")
        return of.settle(race)
    if not ended.wait(deadline.at_most(delay)):
        with lock:
            sends = of.may_send(race)
        if sends and not of.workers.give(lambda: copy("second")):
            copy("second")  # this thread would only wait
        left = deadline.remaining()
        if not ended.wait(left):
            raise of.overdue(left or 0.0)
    with lock:
        return of.settle(race)
