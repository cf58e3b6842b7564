"""A worker whose hook sits in a function of a Python service."""

from __future__ import annotations

from dataclasses import dataclass

from squall.actions.base import Look
from squall.actions.kernel_worker import KernelWorker
from squall.actions.worker import wait_for_end
from squall.kernel import proc
from squall.workers.python_hook import page_name

__all__ = ["PythonHook"]

_END_S = 0.8


@dataclass(frozen=True)
class PythonHook(KernelWorker, kind="python-hook", recoverability="lease"):
    """Start a worker that puts a hook into a Python function; without the worker it lets every call pass within a second.

    A worker that ends in order has the function's own code put back; where it was killed, the next call does that.
    """

    def undo(self) -> None:  # noqa: D102 - as the base says
        wait_for_end(self.token, _END_S)  # its life line is closed: it takes the hook out
        super().undo()

    def verify(self) -> Look:  # noqa: D102
        look = super().verify()
        if not look.normal:
            return look
        if self._page_left():
            return Look(normal=True, detail="the hook passes every call, and is gone with the function's next one")
        return Look(normal=True, detail="the function has its own code again")

    def _page_left(self) -> bool:
        name = page_name(self.token)
        pid = int(self.config["pid"])
        return any(target.startswith(f"/memfd:{name} ") for target in proc.open_files(pid))

    def describe_undo(self) -> str:  # noqa: D102
        return f"{super().describe_undo()}; the function gets its own code back at its next call"
