"""What a worker does that holds packets as well as programs: `holding.hold`, with a delay line in place of the waiting."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Protocol

from squall.workers.holding import RENEW_S, Counts, Held

if TYPE_CHECKING:
    from squall.workers.lifeline import Lifeline
    from squall.workers.network.line import Line

__all__ = ["Watching", "pump"]

_RENEW_NS = int(RENEW_S * 1e9)


class Watching(Held, Protocol):
    """Something that holds programs on interfaces and wants to be asked as soon as those change."""

    def fileno(self) -> int:
        """What can be read when they have."""


def pump(life: Lifeline, held: Watching, line: Line) -> None:
    """Pass packets on, renew and publish until the life line ends (which raises Ended).

    Everything happens between two packets; what it costs (a fraction of a millisecond, five times a second) is part of
    the stated accuracy. The collector of cycles is off: nothing here makes any, and its pauses would be packets' delays.
    """
    try:
        counts = Counts()
        held.renew()
        counts.publish(held.counts())
        gc.collect()
        gc.freeze()
        gc.disable()
        life.ready()
        due = time.monotonic_ns() + _RENEW_NS
        while True:
            told = line.run(due, 0, held.fileno())
            config = life.wait(0) if told else None
            if config is not None:
                held.become(config)
            line.check()
            held.renew()
            counts.publish(held.counts())
            due = time.monotonic_ns() + _RENEW_NS
    finally:
        held.close()
