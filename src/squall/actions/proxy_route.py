"""A proxy of the run's own between clients and a service."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from squall.actions.base import Action, Look
from squall.actions.worker import TOKEN, end_workers, spawn, surviving, wait_for_end

__all__ = ["ProxyRoute"]

_DRAIN_S = 0.5
"""How long connections that are still open at a run's end may take; the proxy of a dead owner gives them 10 s."""


@dataclass(frozen=True)
class ProxyRoute(Action, kind="proxy-route", recoverability="lease"):
    """Listen on `listen` and pass everything on to `upstream`, with no fault on it yet.

    When its owner dies it drops its faults at once, lets open connections drain for at most 10 s, and ends.
    """

    token: str
    listen: str
    upstream: str
    control: str
    """The path of its control socket, in the run's folder."""
    seed: int

    def do(self) -> tuple[int, ...]:  # noqa: D102 - as the base says
        route = {"name": "route", "listen": self.listen, "upstream": self.upstream}
        config = {"control": self.control, "seed": self.seed, "routes": [route]}
        life_line, _ = spawn("squall.proxy.owned", self.token, [json.dumps(config)], site=True)
        return (life_line,)

    def undo(self) -> None:  # noqa: D102
        wait_for_end(self.token, _DRAIN_S)  # its life line is closed: it lets open connections end
        end_workers(self.token)
        Path(self.control).unlink(missing_ok=True)

    def verify(self) -> Look:  # noqa: D102
        left = surviving(self.token)
        if left:
            return Look(normal=False, detail=f"the proxy still runs (pid {left[0].pid})")
        return Look(normal=True, detail="the proxy has ended")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"listen:{self.listen}",)

    def describe(self) -> str:  # noqa: D102
        return f"start a proxy on {self.listen} in front of {self.upstream}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"end the process with {TOKEN}={self.token} in its environment"

    def in_force(self) -> bool:
        """Whether the proxy still runs."""
        return bool(surviving(self.token))
