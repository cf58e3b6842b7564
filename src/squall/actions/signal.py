"""A signal that cannot be taken back: a kill, a crash."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.errors import TargetError

if TYPE_CHECKING:
    from squall.targets.identity import ProcessIdentity

__all__ = ["Signal"]


@dataclass(frozen=True)
class Signal(Action, kind="signal", recoverability="irreversible"):
    """Send one signal to exactly one process; what ends is started again by whoever runs it, not by Squall."""

    process: ProcessIdentity
    name: str
    signal: str

    def prepare(self) -> Signal:  # noqa: D102 - as the base says
        if not self.process.same_program():
            raise TargetError(
                f"{self.name} (pid {self.process.pid}) has ended, or become another program, since it was selected"
            )
        return self

    def do(self) -> tuple[int, ...]:  # noqa: D102
        if not self.process.signal(signal.Signals[self.signal]):
            raise TargetError(f"{self.name} (pid {self.process.pid}) ended before the signal was sent")
        return ()

    def undo(self) -> None:
        """Nothing: it cannot be taken back."""

    def verify(self) -> Look:  # noqa: D102
        return Look(normal=True, detail="cannot be taken back; recovery is the system's own")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (self.process.key,)

    def describe(self) -> str:  # noqa: D102
        return f"send {self.signal} to {self.name} (pid {self.process.pid})"

    def describe_undo(self) -> str:  # noqa: D102
        return "none: it cannot be taken back"

    def counters(self) -> dict[str, int]:
        """One signal."""
        return {"signals": 1}
