"""What the engine and the load's process say to each other, both ways. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass

from squall.probes.traceparent import Marks
from squall.probes.wire import Call

__all__ = ["BEGUN", "FRAME", "FRAME_BYTES_MOST", "ORDER_BYTES_MOST", "REFUSED", "REPORT", "SAMPLES", "Order"]

FRAME = struct.Struct("<BI")
"""Kind and length of what follows."""
SAMPLES, REPORT, BEGUN, REFUSED = 1, 2, 3, 4
"""Packed `samples.RECORD`s, a `LoadReport` as JSON, nothing (the first request is due), a reason as text."""
FRAME_BYTES_MOST = 64 << 20
ORDER_BYTES_MOST = 32 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """Everything the load's process has to know; its first line of input, so that no secret is seen in `ps`."""

    call: Call
    steps: list[tuple[float, float, float]]
    """(rate, ramp seconds, hold seconds)"""
    phase: float
    timeout_ns: int
    connections: int
    drain_ns: int
    marks: Marks | None = None
    """What each request takes along of the run's trace."""

    def encode(self) -> bytes:
        """As one line."""
        data = dataclasses.asdict(self)
        data["call"] |= {"data": self.call.data.decode("latin-1"), "success": sorted(self.call.success)}
        return json.dumps(data).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Order:
        """What `encode` wrote."""
        data = json.loads(line)
        call = data.pop("call")
        call |= {"data": call["data"].encode("latin-1"), "success": frozenset(call["success"])}
        marks = data.pop("marks")
        return cls(call=Call(**call), marks=Marks(**marks) if marks else None, **data)
