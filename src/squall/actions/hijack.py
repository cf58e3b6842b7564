"""A proxy to which the kernel leads the connections of a service that knows nothing of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from squall.actions.kernel_worker import KernelWorker
from squall.actions.proxy_control import ProxyControl, ProxyGone
from squall.actions.worker import end_workers, wait_for_end

__all__ = ["Hijack"]

_DRAIN_S = 0.5
"""How long connections that are still open at the fault's end may take; the proxy of a dead owner gives them 10 s."""


@dataclass(frozen=True)
class Hijack(KernelWorker, kind="hijack", recoverability="lease"):
    """Start a proxy that holds programs which lead connections to it, with no fault on it yet.

    When it ends, in whatever way, new connections go their own way at once; the kernel sees to that. When its owner dies
    it lets go of them, drops its faults, lets open connections drain for at most 10 s, and ends.
    """

    def undo(self) -> None:  # noqa: D102 - as the base says
        wait_for_end(self.token, _DRAIN_S)  # its life line is closed: it lets open connections end
        control = str(self.config["control"])
        with contextlib.suppress(ProxyGone):  # in order: who is still connected sees an end, not a reset
            ProxyControl(control, _DRAIN_S).shutdown()
            wait_for_end(self.token, _DRAIN_S)
        end_workers(self.token)
        Path(control).unlink(missing_ok=True)

    def describe(self) -> str:  # noqa: D102
        return f"start a proxy and {self.purpose}"

    def describe_undo(self) -> str:  # noqa: D102
        return (
            f"{super().describe_undo()}: new connections go their own way at once, open ones go on through it for at most "
            f"{_DRAIN_S:g} s and are closed then"
        )
