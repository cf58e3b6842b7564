"""Looks at the workers of every service while an act is played, and remembers which ran out, and when."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from squall.events import Stamped
    from squall.shop import Pool, Shop

__all__ = ["CHAIN", "Pools"]

CHAIN = ("gateway", "order", "payment", "inventory")
"""The way of an order, from the customer on."""
_LOOK_S = 0.25
_PATIENCE_S = 0.2
"""A service that has not answered by then is not waited for; its answer is taken when it comes."""
_BAR = 24


class Pools:
    """Looks four times a second; also a panel beside the progress of the run."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._stop = shop, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pools", daemon=True)
        self.now: dict[str, Pool | None] = {}
        self.ran_out: dict[str, float] = {}
        """Service: seconds after the fault's start at which all its workers were busy."""
        self.totals: dict[str, int] = {}
        """Service: how many workers that were."""
        self.fault_began: float | None = None
        self.fault_ended: float | None = None
        self.drained: float | None = None
        """When, after the fault, no order waited for a worker any more, by CLOCK_MONOTONIC in seconds."""
        self.say: Any = lambda _line: None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def hear(self, stamped: Stamped) -> None:
        """The run's events, of which the fault's start and end matter here."""
        from squall.events import FaultEnded, FaultStarted

        if isinstance(stamped.event, FaultStarted):
            self.fault_began = time.monotonic()
        elif isinstance(stamped.event, FaultEnded):
            self.fault_ended = time.monotonic()

    def _watch(self) -> None:
        with ThreadPoolExecutor(len(CHAIN)) as asking:  # a stalled service must not hold up the look at the others
            waiting: dict[str, Future[Pool | None]] = {}
            while not self._stop.wait(_LOOK_S):
                pending = {name: asking.submit(self._shop.pool, name) for name in CHAIN if name not in waiting}
                asked = time.monotonic()
                waiting |= pending
                wait(waiting.values(), _PATIENCE_S)
                answered = {name: one for name, one in waiting.items() if one.done()}
                for name, answer in answered.items():
                    del waiting[name]
                    self._look(name, answer.result())
                if not waiting:
                    self._see_whether_drained(asked)

    def _see_whether_drained(self, asked: float) -> None:
        if self.fault_ended is None or asked <= self.fault_ended or self.drained is not None:
            return
        if not any(pool is None or pool.exhausted or pool.queue for pool in self.now.values()):
            self.drained = asked

    def _look(self, name: str, pool: Pool | None) -> None:
        self.now[name] = pool
        under_way = self.fault_began is not None and self.fault_ended is None
        if (
            pool is not None
            and pool.exhausted
            and under_way
            and name not in self.ran_out
            and self.fault_began is not None
        ):
            self.ran_out[name], self.totals[name] = time.monotonic() - self.fault_began, pool.total
            self.say(f"all {pool.total} workers of {name} are busy, {self.ran_out[name]:.1f} s after inventory stopped")

    def rows(self) -> list[Any]:
        """Bars for the live panel."""
        from rich.text import Text

        lines = [Text("workers busy", style="dim")]
        for name in CHAIN:
            pool = self.now.get(name)
            if name == "inventory" and self.fault_began is not None and self.fault_ended is None:
                lines.append(Text.assemble((f"  {name:10}", ""), ("stands still", "magenta")))
            elif pool is None:
                lines.append(Text(f"  {name:10}?"))
            else:
                lines.append(_bar(name, pool))
        return lines


def _bar(name: str, pool: Pool) -> Any:
    from rich.text import Text

    filled = min(_BAR, round(pool.busy / pool.total * _BAR))
    colour = "red" if pool.exhausted else "yellow" if filled > _BAR // 2 else "green"
    return Text.assemble(
        f"  {name:10}", ("█" * filled, colour), ("░" * (_BAR - filled), "grey30"), f" {pool.busy:3}/{pool.total}",
        (f"  {pool.queue} wait" if pool.queue else "", "dim"),
    )  # fmt: skip
