"""What a mechanism says: can it work here, and which steps make this fault real on this target."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from squall.kernel import cgroups

if TYPE_CHECKING:
    from pathlib import Path

    from squall.actions import Action, Recoverability
    from squall.faults import Fault
    from squall.targets import ProcessTarget, Target

__all__ = ["Capability", "Host", "Injector", "Plan", "Refusal", "Site", "not_permitted"]


@dataclass(frozen=True, slots=True)
class Host:
    """The facts of this machine that planners may ask for, read once."""

    root: bool
    cgroups: bool
    pidfd: bool
    proxy: bool
    kernel: str

    @classmethod
    def look(cls) -> Host:
        """Read them; each is tried, not concluded from a version."""
        return cls(
            os.geteuid() == 0, bool(cgroups.hierarchies()), _pidfd_works(), hasattr(os, "splice"), platform.release()
        )


def _pidfd_works() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether a mechanism works on this machine, with the reason; None: it could not be told."""

    works: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """What a plan needs to know of the run that it is for."""

    run: str
    folder: Path
    fault: str
    """The fault's id in the run, "0-tcp.latency"."""
    seed: int
    """This fault's own, derived from the experiment's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that make a fault real, and what can be said of them beforehand."""

    mechanism: str
    actions: tuple[Action, ...]
    """Done in this order when the fault begins, undone in reverse when it ends."""
    accuracy: str
    """What is stated of its accuracy, for people."""
    setup: tuple[Action, ...] = ()
    """Done before the baseline, undone after the run: a way that traffic must take from the start. Shared by faults."""
    accuracy_ns: int = 0
    """The stated error in ns where there is one; smaller is better."""
    cost: int = 0
    """What it costs those who are not targets, to compare mechanisms by: 0 nothing, 1 a hook they pass through, 2 more."""
    not_covered: tuple[str, ...] = ()

    @property
    def recoverability(self) -> Recoverability:
        """The worst of its steps'."""
        order: tuple[Recoverability, ...] = ("lease", "guarded", "irreversible")
        return max((action.recoverability for action in (*self.setup, *self.actions)), key=order.index, default="lease")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a mechanism does not make this fault real on this target: a thing it cannot honour is a refusal, not silence."""

    mechanism: str
    reason: str


def not_permitted(target: ProcessTarget) -> str | None:
    """Why this user may not touch a process or one of those that it covers; looked at before the baseline, not after it."""
    return next((reason for one in target.all if (reason := one.refusal()) is not None), None)


class Injector(Protocol):
    """A mechanism: pure, it reads the state of the target at most."""

    mechanism: ClassVar[str]
    faults: ClassVar[tuple[str, ...]]
    """The type tags that it may make real."""
    summary: ClassVar[str]
    """How it does it and how well, in one line, for `squall doctor`."""
    recoverability: ClassVar[Recoverability]

    def capable(self, host: Host) -> Capability:
        """Whether it works on this machine at all."""

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:
        """The steps, or the reason why not."""
