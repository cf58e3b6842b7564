"""Faults on what a process takes for the time."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from squall.faults.base import Fault
from squall.faults.frozen import Rows
from squall.units import Drift, Offset, Within

__all__ = ["WALL_CLOCKS", "Skew"]

WALL_CLOCKS = ("realtime", "realtime_coarse", "realtime_alarm", "tai")
_STEADY = ("monotonic", "monotonic_raw", "monotonic_coarse", "boottime", "boottime_alarm")


def _wall_clock(name: str) -> str:
    plain = name.lower().removeprefix("clock_")
    if plain in _STEADY:
        raise ValueError(
            f"a skew of CLOCK_{plain.upper()} is refused: language runtimes rely on it never to step (their timers, locks "
            f"and schedulers hang or crash), so only wall clocks can be skewed: {', '.join(WALL_CLOCKS)}"
        )
    if plain not in WALL_CLOCKS:
        raise ValueError(f"there is no wall clock {name[:40]!r}: there are {', '.join(WALL_CLOCKS)}")
    return plain


class Skew(Fault, type="time.skew", targets=("process",)):
    """The process's wall clock is wrong: by an offset, by a drift that grows from the moment the fault begins, or both.

    Its monotonic clock, other processes and the machine's clock stay true. The process is not restarted; it stands
    still for a few milliseconds when the fault begins and when it ends.
    """

    offset: Annotated[Offset, Within("-36500d", "36500d")] = Offset(0)
    """How far its wall clocks are before the true time, or behind it ("-1d")."""
    drift: Annotated[Drift, Within("-500000ppm", "500000ppm")] = Drift(0)
    """By how much they run faster, or slower ("-200ppm"); a bare number is in ppm. 1 ppm is 86 ms a day."""
    clocks: Annotated[
        Rows[Annotated[str, AfterValidator(_wall_clock), Field(json_schema_extra={"enum": list(WALL_CLOCKS)})]],
        Field(min_length=1),
    ] = WALL_CLOCKS
    """Which of the kernel's wall clocks; gettimeofday() belongs to `realtime`, time() to `realtime_coarse`."""
    descendants: bool = False
    """Also the processes that descend from the target when the fault begins, and what these fork while it is on."""

    @model_validator(mode="after")
    def _something_is_wrong(self) -> Self:
        if not self.offset and not self.drift:
            raise ValueError("give `offset`, `drift` or both: how should the clock be wrong?")
        return self
