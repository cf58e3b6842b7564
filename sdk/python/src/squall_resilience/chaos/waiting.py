"""How a request is held back: never for less than it was drawn, and never longer than what holds it is on."""

from __future__ import annotations

import time
from time import monotonic
from typing import TYPE_CHECKING

from squall_resilience.running import sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.chaos.decision import Hit
    from squall_resilience.chaos.middleware import Chaos

__all__ = ["wait", "wait_async"]

SLICE_S = 0.25
"""After so long it is looked again whether the fault is still on."""


def wait(chaos: Chaos, hit: Hit, sleeps: Callable[[float], object] = time.sleep) -> None:
    """Hold this thread for the hit's delay, or until the fault is off."""
    end = monotonic() + hit.delay_ns / 1e9
    while (left := end - monotonic()) > 0:
        sleeps(min(left, SLICE_S))
        if left > SLICE_S and not chaos.holds(hit):
            return


async def wait_async(chaos: Chaos, hit: Hit) -> None:
    """The same for a task, on asyncio or trio."""
    end = monotonic() + hit.delay_ns / 1e9
    while (left := end - monotonic()) > 0:
        await sleep(min(left, SLICE_S))
        if left > SLICE_S and not chaos.holds(hit):
            return
