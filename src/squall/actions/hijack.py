"""A proxy to which the kernel leads the connections of a service that knows nothing of it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.actions.kernel_worker import KernelWorker
from squall.actions.proxy_control import ProxyControl, ProxyGone
from squall.actions.worker import end_workers, spawn, surviving, wait_for_end

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Hijack"]

_FIXED = ("control", "direction", "netns", "cgroup", "member")
"""What of its configuration is settled for its life."""
_DRAIN_S = 0.5
"""How long connections that are still open at the fault's end may take; the proxy of a dead owner gives them 10 s."""


@dataclass(frozen=True)
class Hijack(KernelWorker, kind="hijack", recoverability="lease"):
    """Start a proxy that holds programs which lead connections to it, with no fault on it yet.

    When it ends, in whatever way, new connections go their own way at once; the kernel sees to that. When its owner dies
    it lets go of them, drops its faults, lets open connections drain for at most 10 s, and ends.
    """

    def do(self) -> tuple[int, ...]:  # noqa: D102 - as the base says
        life_line, _ = spawn(self.module, self.token, [json.dumps(self.config)])
        return (life_line,)

    def undo(self) -> None:  # noqa: D102
        wait_for_end(self.token, _DRAIN_S)  # its life line is closed: it lets open connections end
        control = str(self.config["control"])
        with contextlib.suppress(ProxyGone):  # in order: who is still connected sees an end, not a reset
            ProxyControl(control, _DRAIN_S).shutdown()
            wait_for_end(self.token, _DRAIN_S)
        end_workers(self.token)
        Path(control).unlink(missing_ok=True)

    def verify(self) -> Look:  # noqa: D102
        left = surviving(self.token)
        if left:
            return Look(normal=False, detail=f"the proxy still runs (pid {left[0].pid}), connections may be led to it")
        return Look(normal=True, detail="the proxy has ended, connections go their own way")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return self.holds

    def become(self, new: Action, held: Sequence[int]) -> bool:
        """Lead others from now on; the direction, the cgroup and the network namespace stay."""
        if not isinstance(new, Hijack) or any(new.config.get(name) != self.config.get(name) for name in _FIXED):
            return False
        return super().become(new, held)

    def describe(self) -> str:  # noqa: D102
        return f"start a proxy and {self.purpose}"

    def describe_undo(self) -> str:  # noqa: D102
        return (
            f"{super().describe_undo()}: new connections go their own way at once, open ones go on through it for at most "
            f"{_DRAIN_S:g} s and are closed then"
        )
