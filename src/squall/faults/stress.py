"""Faults that use up what a service needs: CPU, memory, file descriptors, disk."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from squall.faults.base import Fault
from squall.units import Bandwidth, Ratio, Size, Within

__all__ = ["Cpu", "Disk", "FileDescriptors", "Memory"]


class Cpu(Fault, type="stress.cpu", targets=("process", "cgroup")):
    """Workers beside the target burn CPU, in the target's cgroup where it has one of its own, so they share its quota and weight."""

    load: Annotated[Ratio, Within("1%", "100%")] = Ratio.parse("100%")
    """The share that is burnt, held within 5 points."""
    of: Literal["core", "target"] = "core"
    """A share of one core for each worker, or of all the CPU that the target may use: its cgroup's quota, else the machine's cores."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many workers, each at most one core; `of: target` takes as many as it needs."""

    @model_validator(mode="after")
    def _workers_are_counted_once(self) -> Self:
        if self.of == "target" and self.workers != 1:
            raise ValueError("`workers` goes with `of: core`: a share of the target's CPU takes as many as it needs")
        return self


class Memory(Fault, type="stress.memory", targets=("process", "cgroup")):
    """A worker beside the target holds memory, in the target's cgroup where it has one, all at once or growing like a leak.

    The machine itself stays safe: the worker stops growing, and says so, before less than `spare` is available.
    """

    amount: Annotated[Size, Within("1MiB", "1TiB")] | None = None
    """How much it holds."""
    percent: Annotated[Ratio, Within("1%", "95%")] | None = None
    """How much it holds, as a share of the target's cgroup limit, or of the machine's memory where there is none."""
    leak: Annotated[Bandwidth, Within("1kB/s", "1GB/s")] | None = None
    """Grow at this rate ("10MB/s") up to the amount, instead of at once."""
    spare: Annotated[Ratio, Within("5%", "90%")] = Ratio.parse("10%")
    """The share of the machine's memory that is left available whatever is asked."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.amount is None) == (self.percent is None):
            raise ValueError("give either `amount` or `percent`")
        return self


class FileDescriptors(Fault, type="stress.fd", targets=("process",)):
    """The process runs out of file descriptors: accept, open and connect fail with EMFILE once the few that are left are used.

    Its limit (RLIMIT_NOFILE) is lowered to just above what it has open; nothing that is open is closed.
    """

    leave: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many more it may still open."""


class Disk(Fault, type="stress.disk", targets=("process", "cgroup")):
    """A worker fills a folder's file system, or keeps its disk busy, with a nameless file that vanishes with the worker."""

    path: Annotated[str, Field(pattern=r"^/", max_length=4096)]
    """The folder to fill or to write in, as an absolute path; the file has no name in it."""
    fill: Annotated[Size, Within("1MiB", "16TiB")] | None = None
    """Take this much space."""
    fill_percent: Annotated[Ratio, Within("1%", "100%")] | None = None
    """Take space until this share of the file system is used."""
    write: Annotated[Bandwidth, Within("1kB/s", "10GB/s")] | None = None
    """Write and fsync at this rate."""
    spare: Annotated[Size, Within("0B", "1TiB")] = Size.parse("64MiB")
    """Space that is left free whatever is asked."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.fill is not None and self.fill_percent is not None:
            raise ValueError("give either `fill` or `fillPercent`")
        if self.fill is None and self.fill_percent is None and self.write is None:
            raise ValueError("give `fill`, `fillPercent` or `write`: what should happen to the disk?")
        return self
