"""A worker that holds packets in user space."""

from __future__ import annotations

from dataclasses import dataclass

from squall.actions.kernel_worker import KernelWorker
from squall.actions.worker import end_workers, wait_for_end

__all__ = ["LineWorker"]

_FLUSH_S = 0.5


@dataclass(frozen=True)
class LineWorker(KernelWorker, kind="line-worker", recoverability="lease"):
    """A kernel worker that, at the end of its life line, first lets go what it holds: no packet is lost by the end."""

    def undo(self) -> None:
        """Give it a moment for that; then it is ended as any other."""
        wait_for_end(self.token, _FLUSH_S)
        end_workers(self.token)
