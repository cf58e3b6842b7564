"""Which answers were not the dependencies' own: noticed by whoever wants to know, at no cost to calls that go well.

A decorated call keeps its signature, so what it gives does not say where it is from. Whoever must tell (a handler that
marks its response, a page that greys out a price) opens `staleness()` around the calls and looks afterwards.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Staleness", "Substitute", "notice", "staleness"]

ANSWERS_MAX: Final = 100


@dataclass(frozen=True)
class Substitute:
    """An answer that was given instead of a dependency's."""

    dependency: str
    answer: Literal["cached", "preset"]
    age: float
    """How long ago the dependency gave it, in seconds; 0 for a preset one."""
    error: str
    """Why the dependency did not answer."""


@dataclass
class Staleness:
    """The substitutes among the answers in a block, in order; of more than a hundred the first ones."""

    answers: list[Substitute] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.answers)

    @property
    def age(self) -> float:
        """Of the oldest, in seconds; 0 when all are new or preset."""
        return max((each.age for each in self.answers), default=0.0)

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Who did not answer, each once, in order."""
        return tuple(dict.fromkeys(each.dependency for each in self.answers))


_noticing: ContextVar[tuple[Staleness, ...]] = ContextVar("squall_resilience.staleness", default=())


@contextmanager
def staleness() -> Iterator[Staleness]:
    """Notice the substitutes given in this block, in tasks begun in it too, and in threads with its context."""
    seen = Staleness()
    token = _noticing.set((*_noticing.get(), seen))
    try:
        yield seen
    finally:
        _noticing.reset(token)


def notice(substitute: Substitute) -> None:
    """Tell whoever is noticing."""
    for seen in _noticing.get():
        if len(seen.answers) < ANSWERS_MAX:
            seen.answers.append(substitute)
