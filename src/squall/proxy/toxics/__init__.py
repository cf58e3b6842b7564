"""The toxics: one a file, each a `Stage` of about sixty lines. No socket, no listener, no API may enter.

To add one: write its `Attributes` and its `Stage` in a file of its own, implement `feed` (and `release` and `close`
if it holds data or timers), and name it in `KINDS` below. The API, the control protocol, the counters and the test
that streams hashed data while toxics come and go then know it.
"""

from __future__ import annotations

from typing import Any

from squall.proxy.toxics.bandwidth import Bandwidth
from squall.proxy.toxics.latency import Latency
from squall.proxy.toxics.limit_data import LimitData
from squall.proxy.toxics.reset_peer import ResetPeer
from squall.proxy.toxics.slicer import Slicer
from squall.proxy.toxics.slow_close import SlowClose
from squall.proxy.toxics.stage import Direction, Hits, Host, Inlet, Stage, Toxic
from squall.proxy.toxics.timeout import Timeout

__all__ = ["KINDS", "Direction", "Hits", "Host", "Inlet", "Stage", "Toxic"]

KINDS: dict[str, type[Stage[Any]]] = {
    kind.type: kind for kind in (Latency, Bandwidth, SlowClose, Timeout, ResetPeer, Slicer, LimitData)
}
"""Every toxic on the byte stream by its type, in Toxiproxy's spelling."""
