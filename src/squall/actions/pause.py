"""A process that stands still."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.errors import ActionFailed, TargetError

if TYPE_CHECKING:
    from squall.targets.identity import ProcessIdentity

__all__ = ["Pause", "free_to_stop", "let_go", "look_at"]

_SETTLE_S = 2.0
"""A stop takes effect when each thread next returns to user space; this long is waited for it, then it is an error."""


def free_to_stop(process: ProcessIdentity, name: str) -> None:
    """Raise TargetError unless the process runs and nobody else has stopped it."""
    stat = process.stat()
    if stat is None or not process.same_program():
        raise TargetError(f"{name} (pid {process.pid}) has ended, or become another program, since it was selected")
    if stat.stopped:
        raise TargetError(
            f"{name} (pid {process.pid}) is stopped already, not by this run; let it go on first (kill -CONT {process.pid})"
        )


def let_go(process: ProcessIdentity) -> None:
    """Let the process go on, if it is still the same; also where no stop is seen, for one may be on its way."""
    if process.same_process():
        process.signal(signal.SIGCONT)


def look_at(process: ProcessIdentity) -> Look:
    """Whether the process runs (or has ended): a stopped one is given a moment to wake."""
    deadline = time.monotonic() + _SETTLE_S
    while (stat := process.stat()) is not None and stat.stopped and time.monotonic() < deadline:
        time.sleep(0.002)
    if stat is None:
        return Look(normal=True, detail="the process has ended")
    return Look(normal=not stat.stopped, detail=f"its state is {stat.state}")


@dataclass(frozen=True)
class Pause(Action, kind="pause", recoverability="guarded"):
    """Stop a process with SIGSTOP until it is undone with SIGCONT."""

    process: ProcessIdentity
    name: str

    def prepare(self) -> Pause:  # noqa: D102 - as the base says
        free_to_stop(self.process, self.name)
        return self

    def do(self) -> tuple[int, ...]:  # noqa: D102
        if not self.process.signal(signal.SIGSTOP):
            raise TargetError(f"{self.name} (pid {self.process.pid}) ended before it could be stopped")
        deadline = time.monotonic() + _SETTLE_S
        while (stat := self.process.stat()) is not None and not stat.stopped:
            if time.monotonic() > deadline:
                raise ActionFailed(f"{self.name} (pid {self.process.pid}) did not stop: its state is {stat.state}")
            time.sleep(0.0005)
        return ()

    def undo(self) -> None:  # noqa: D102
        let_go(self.process)

    def verify(self) -> Look:  # noqa: D102
        return look_at(self.process)

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (self.process.key,)

    def describe(self) -> str:  # noqa: D102
        return f"stop {self.name} (pid {self.process.pid}) with SIGSTOP"

    def describe_undo(self) -> str:  # noqa: D102
        return f"kill -CONT {self.process.pid}"

    def counters(self) -> dict[str, int]:
        """One stop."""
        return {"stops": 1}
