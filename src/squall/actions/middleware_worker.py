"""A worker that drives the chaos middleware of a service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from squall.actions.base import Look
from squall.actions.kernel_worker import KernelWorker
from squall.workers.middleware import left_of, remove_left

__all__ = ["MiddlewareWorker"]


@dataclass(frozen=True)
class MiddlewareWorker(KernelWorker, kind="middleware-worker", recoverability="lease"):
    """Start a worker that lets a middleware inject under a lease; a second after it has died, nothing is injected.

    What it was killed too fast to take away, two small files that nobody believes any more, its undo takes away.
    """

    def undo(self) -> None:  # noqa: D102 - as the base says
        super().undo()
        remove_left(Path(self.config["folder"]), self.config["name"], self.config["run"])

    def verify(self) -> Look:  # noqa: D102
        look = super().verify()
        left = left_of(Path(self.config["folder"]), self.config["name"], self.config["run"])
        return Look(normal=False, detail=f"{left} is still there") if look.normal and left is not None else look

    def describe_undo(self) -> str:  # noqa: D102
        control = Path(self.config["folder"], f"{self.config['name']}.json")
        return f"{super().describe_undo()}; remove {control}"
