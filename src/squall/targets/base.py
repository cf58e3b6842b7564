"""What every target can say of itself."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

__all__ = ["Target"]


class Target(Protocol):
    """A concrete thing on this machine: it has a kind, a name for people, and it knows whether it is still itself."""

    kind: ClassVar[str]

    @property
    def key(self) -> str:
        """Its identity as one word: two targets with the same key are the same thing."""

    @property
    def label(self) -> str:
        """For people: "shop-inventory (pid 4711)"."""

    def alive(self) -> bool:
        """Whether it is still there and still itself."""

    def to_json(self) -> dict[str, Any]:
        """As events and reports hold it."""
