"""What every fault is: a frozen model with a type tag, and the registry of them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from squall.errors import InputError
from squall.faults.frozen import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAULTS", "Fault", "TargetKind", "fault_model", "fault_types", "parse_fault"]

TargetKind = Literal["process", "cgroup", "container", "netns", "route", "middleware"]
"""What a fault can happen to, in the spelling of a document's `targets`. A container is a cgroup: who takes one, takes both."""

FAULTS: dict[str, type[Fault]] = {}
"""Every fault by its type tag, in the order of definition."""


class Fault(FrozenModel):
    """The base: a subclass is written `class Latency(Fault, type="tcp.latency", targets=("route",))`.

    Its docstring says what the target will feel; its fields have units in their types and ranges in their annotations.
    A field `new_path` is `newPath` in a document and `--new-path` on the command line. The names `type`, `targets`,
    `after`, `duration` and `pulse` are taken: in a document they stand beside the fault's own.
    """

    type: ClassVar[str] = ""
    """The tag, `family.name`."""
    targets: ClassVar[tuple[TargetKind, ...]] = ()
    """The kinds of target that it can happen to."""
    reversible: ClassVar[bool] = True
    """False: what it does cannot be taken back (a kill); the system's own recovery is what is watched."""

    def __init_subclass__(
        cls,
        *,
        type: str = "",  # noqa: A002 - it is the tag's name in a document too
        targets: tuple[TargetKind, ...] = (),
        reversible: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if not type:  # a shared base of a family, not a fault
            return
        if type in FAULTS:
            raise ValueError(f"two faults are called {type}")
        cls.type, cls.targets, cls.reversible = type, _with_containers(targets), reversible
        FAULTS[type] = cls

    def parameters(self) -> dict[str, Any]:
        """Its fields as JSON values in the document's spelling, quantities in their written form; what is empty by default is left out."""
        return self.model_dump(mode="json")


def _with_containers(kinds: tuple[TargetKind, ...]) -> tuple[TargetKind, ...]:
    both: dict[TargetKind, tuple[TargetKind, ...]] = {"cgroup": ("cgroup", "container")}
    return tuple(one for kind in kinds for one in both.get(kind, (kind,)))


def fault_types() -> list[str]:
    """Every type tag, sorted."""
    return sorted(FAULTS)


def fault_model(tag: str) -> type[Fault]:
    """The model of this type; InputError, with the nearest right spelling, where there is none."""
    if tag in FAULTS:
        return FAULTS[tag]
    close = difflib.get_close_matches(tag[:60], FAULTS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(f"there is no fault {tag[:60]!r}; {hint}There are {', '.join(fault_types())}")


def parse_fault(tag: str, parameters: Mapping[str, Any]) -> Fault:
    """The fault of this type with these parameters; InputError for an unknown tag, pydantic's error for wrong fields."""
    return fault_model(tag).model_validate(dict(parameters))
