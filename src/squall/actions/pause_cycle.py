"""A process that stands still for a part of each period."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squall.actions.base import Action, Look
from squall.actions.pause import free_to_stop, let_go, look_at
from squall.actions.worker import TOKEN, dismiss, end_workers, spawn, stand_by, surviving, tell
from squall.workers import pause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.targets.identity import ProcessIdentity

__all__ = ["PauseCycle"]


@dataclass(frozen=True)
class PauseCycle(Action, kind="pause-cycle", recoverability="guarded"):
    """A worker stops the process for `stopped_ns` in every `every_ns` and lets it go when its owner ends.

    Guarded although the worker has a lease: a worker that is killed between stop and go leaves the process stopped.
    """

    token: str
    process: ProcessIdentity
    name: str
    stopped_ns: int
    every_ns: int

    def prepare(self) -> PauseCycle:  # noqa: D102 - as the base says
        free_to_stop(self.process, self.name)
        return self

    def stand_by(self) -> None:
        """Have its worker ready."""
        stand_by("squall.workers.pause", self.token)

    def dismiss(self) -> None:
        """End the worker that stands by for it."""
        dismiss(self.token)

    def do(self) -> tuple[int, ...]:  # noqa: D102
        life_line, _ = spawn("squall.workers.pause", self.token, [json.dumps(_config(self))])
        return (life_line,)

    def undo(self) -> None:  # noqa: D102
        end_workers(self.token)  # first, or it would stop the process again
        let_go(self.process)

    def verify(self) -> Look:  # noqa: D102
        left = surviving(self.token)
        if left:
            return Look(normal=False, detail=f"its worker still runs (pid {left[0].pid})")
        return look_at(self.process)

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (self.process.key,)

    def describe(self) -> str:  # noqa: D102
        share = self.stopped_ns / self.every_ns
        return f"stop {self.name} (pid {self.process.pid}) for {share:.0%} of every {self.every_ns / 1e6:g} ms"

    def describe_undo(self) -> str:  # noqa: D102
        return f"end the process with {TOKEN}={self.token} in its environment, then kill -CONT {self.process.pid}"

    def become(self, new: Action, held: Sequence[int]) -> bool:
        """Give the worker another duty cycle."""
        if not isinstance(new, PauseCycle) or not held:
            return False
        return tell(held[0], _config(new))

    def in_force(self) -> bool:
        """Whether the worker still runs."""
        return bool(surviving(self.token))

    def counters(self) -> dict[str, int]:
        """How often it has stopped the process."""
        return {
            "stops": sum(
                int(stat.comm[len(pause.STOPS) :])
                for stat in surviving(self.token)
                if stat.comm.startswith(pause.STOPS)
            )
        }


def _config(cycle: PauseCycle) -> dict[str, Any]:
    who = cycle.process
    return pause.Config(who.pid, who.start_ticks, cycle.name, cycle.stopped_ns, cycle.every_ns)._asdict()
