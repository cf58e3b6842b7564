"""How one data plane runs: its engine, its timers, its bounds. Plain values, read from JSON, checked once at start."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from squall.proxy.refusals import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Options"]

_LIMITS: dict[str, tuple[int, int]] = {
    "spin_us": (0, 1_000),
    "busy_poll_us": (0, 1_000),
    "queue_bytes": (1 << 16, 1 << 32),
    "total_bytes": (1 << 20, 1 << 36),
    "pipes": (0, 100_000),
    "http_body_bytes": (0, 1 << 30),
    "drain_s": (0, 3_600),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a data plane; the defaults are the measured best of docs/reference/proxy.md."""

    engine: Literal["splice", "copy"] = "splice"
    """`splice` moves bulk data through kernel pipes without copying it; `copy` never does."""
    spin_us: int = 150
    """The last stretch before a precise timer is waited for awake: 0 to 1,000 microseconds."""
    stamp: bool = True
    """Count a delay from the packet's arrival in the kernel, not from when the proxy woke up."""
    busy_poll_us: int = 0
    """Stay awake this long after the last event (lower round trips for a busy core): 0 to 1,000 microseconds."""
    realtime: bool = False
    """Run under SCHED_FIFO, so that delays hold on a loaded machine; needs the right to do so."""
    queue_bytes: int = 128 << 20
    """What one direction of one connection may hold while it is delayed."""
    total_bytes: int = 1 << 30
    """What the whole process may hold; beyond it each direction holds at most 256 KiB."""
    pipes: int = 2048
    """How many kernel pipes may exist at once; beyond it data is copied."""
    http: bool = False
    """Follow HTTP from each connection's first byte even while no HTTP toxic is there, so that one that comes later hits it."""
    http_body_bytes: int = 8 << 20
    """The largest HTTP body that is held in order to change it; larger ones pass unchanged and count as missed."""
    drain_s: int = 10
    """How long open connections may go on after the owner has died."""

    @classmethod
    def read(cls, given: Mapping[str, object]) -> Options:
        """Options from JSON values; Invalid for an unknown name, a wrong type or a value out of range."""
        known = {field.name: field.default for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise Invalid(f"there is no option {name!r}; there are {', '.join(known)}")
            default = known[name]
            if type(value) is not type(default):
                raise Invalid(f"option {name}: {value!r} is not {_article(default)}")
            if name == "engine" and value not in ("splice", "copy"):
                raise Invalid(f"option engine: {value!r} is unknown; splice and copy are allowed")
            if name in _LIMITS and isinstance(value, int):
                least, most = _LIMITS[name]
                if not least <= value <= most:
                    raise Invalid(f"option {name}: {value} is out of range; {least} to {most} is allowed")
        return cls(**given)  # type: ignore[arg-type] # each value was checked against its field above


def _article(default: object) -> str:
    return {bool: "true or false", int: "a whole number", str: "a text"}[type(default)]
