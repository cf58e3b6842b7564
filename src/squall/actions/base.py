"""What a step is, and how it stands in the journal."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from squall.errors import JournalError
from squall.targets.identity import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ACTIONS",
    "Action",
    "Adjustable",
    "Counted",
    "Leased",
    "Look",
    "Recoverability",
    "StandsBy",
    "decode",
    "encode",
]

Recoverability = Literal["lease", "guarded", "irreversible"]
"""How a step ends when its owner dies: `lease` by itself, `guarded` when somebody undoes it, `irreversible` never."""

ACTIONS: dict[str, type[Action]] = {}
"""Every kind of step by its name in the journal."""


@dataclass(frozen=True, slots=True)
class Look:
    """What `verify` saw: whether the object is back to normal, and in words what it is."""

    normal: bool
    detail: str


@dataclass(frozen=True)
class Action(ABC):
    """One step. Fields are JSON-able (ProcessIdentity, strings, numbers, lists of them) and all that undo needs.

    A subclass is written `class Pause(Action, kind="pause", recoverability="guarded")`. Every method may be called in
    another process than the one that did the step, and after the machine has started anew.
    """

    kind: ClassVar[str] = ""
    recoverability: ClassVar[Recoverability] = "guarded"

    def __init_subclass__(cls, *, kind: str, recoverability: Recoverability, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind in ACTIONS and ACTIONS[kind].__qualname__ != cls.__qualname__:
            raise ValueError(f"two actions are called {kind}")
        cls.kind, cls.recoverability = kind, recoverability
        ACTIONS[kind] = cls

    def prepare(self) -> Self:
        """Read the present state and return the complete step, with all that undo will need; changes nothing.

        CannotInject where the state does not allow the step.
        """
        return self

    def adjusted(self, new: Action) -> Action:
        """What this step, prepared as it is, becomes when `new` is asked for: `new` with all that undo will need."""
        return new

    @abstractmethod
    def do(self) -> Sequence[int]:
        """Make exactly what was named; return descriptors that keep it on: the executor closes them before it undoes."""

    @abstractmethod
    def undo(self) -> None:
        """Take it back: idempotent, harmless when the object is gone or is another's, harmless when it was never done."""

    @abstractmethod
    def verify(self) -> Look:
        """Look at the object: is it back to normal? Never assumed."""

    @abstractmethod
    def objects(self) -> tuple[str, ...]:
        """What it holds, as words: two runs never hold the same one at a time."""

    @abstractmethod
    def describe(self) -> str:
        """What it does, for the plan and the report: "stop shop-inventory (pid 4711)"."""

    @abstractmethod
    def describe_undo(self) -> str:
        """What takes it back, as a person could do it by hand."""


@runtime_checkable
class Counted(Protocol):
    """A step that knows how often it has hit."""

    def counters(self) -> dict[str, int]:
        """Counts so far; empty when they cannot be read any more."""


@runtime_checkable
class Adjustable(Protocol):
    """A step that can take new arguments while it is on, without a gap."""

    def become(self, new: Action, held: Sequence[int]) -> bool:
        """Change to `new` (the journal has it already), through the descriptors that `do` returned; False: cannot."""


@runtime_checkable
class Leased(Protocol):
    """A step that may lapse while its owner lives: then the run cannot be judged."""

    def in_force(self) -> bool:
        """Whether it is still on."""


@runtime_checkable
class StandsBy(Protocol):
    """A step that starts a process, and can have it ready before its time comes; that touches nothing."""

    def stand_by(self) -> None:
        """Have it ready; once is enough."""

    def dismiss(self) -> None:
        """It is not needed any more; harmless when it is at work, or was never there."""


def encode(action: Action) -> dict[str, Any]:
    """The step as the journal holds it."""
    return {"kind": action.kind, "args": dataclasses.asdict(action)}


def decode(data: Mapping[str, Any]) -> Action:
    """Read a step back; JournalError for a kind or arguments that this Squall does not know."""
    cls = ACTIONS.get(data.get("kind", ""))
    if cls is None:
        raise JournalError(
            f"the journal holds a step of an unknown kind {data.get('kind')!r}: it was written by a newer Squall"
        )
    try:
        return cls(**{name: _revive(value) for name, value in data["args"].items()})
    except (AttributeError, KeyError, TypeError) as error:
        raise JournalError(f"the journal holds a step {cls.kind!r} that this Squall cannot read: {error}") from error


_IDENTITY_FIELDS = {field.name for field in dataclasses.fields(ProcessIdentity)}


def _revive(value: object) -> object:
    if isinstance(value, dict) and set(value) == _IDENTITY_FIELDS:
        return ProcessIdentity.from_json(value)
    if isinstance(value, list):
        return tuple(_revive(item) for item in value)
    return value
