"""What a toxic can be told: frozen dataclasses of JSON values, read as Toxiproxy reads them.

Unknown names are ignored, what is not given keeps its value (or its default, 0), a whole number takes no fraction.
Attributes that Toxiproxy does not have are shown only when they are not at their default.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Self

from squall.proxy.refusals import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Attributes"]

_INT64 = 1 << 63
_NOUNS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    tuple: "a list of texts",
}


@dataclass(frozen=True)
class Attributes:
    """The base of all attributes; `ours` names those that Toxiproxy does not have."""

    ours: ClassVar[frozenset[str]] = frozenset()
    nullable: ClassVar[dict[str, type]] = {}
    """The types of attributes whose default is None."""

    @classmethod
    def kinds(cls) -> dict[str, type]:
        """The type of each attribute."""
        plain = cls()
        return {field.name: cls.nullable.get(field.name) or type(getattr(plain, field.name)) for field in fields(cls)}

    def updated(self, given: Mapping[str, object]) -> Self:
        """These attributes with the given ones changed; Invalid for a value of the wrong type."""
        kinds = self.kinds()
        changes = {
            name: _checked(name, given[name], kind) for name, kind in kinds.items() if given.get(name) is not None
        }
        after = replace(self, **changes)
        after.check()
        return after

    def check(self) -> None:
        """Raise Invalid for values that make no sense together."""

    def to_json(self) -> dict[str, object]:
        """The attributes as the API shows them."""
        plain = type(self)()
        hidden = self.ours | set(self.nullable)
        shown = {
            name: getattr(self, name)
            for name in self.kinds()
            if name not in hidden or getattr(self, name) != getattr(plain, name)
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}


def _checked(name: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise Invalid(f"{name}: {value!r} is not {_NOUNS[kind]}")
    if kind is int and isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise Invalid(f"{name}: {value} does not fit into 64 bits")
    return value
