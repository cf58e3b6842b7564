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


@dataclass(frozen=True)
class Attributes:
    """The base of all attributes; `ours` names those that Toxiproxy does not have."""

    ours: ClassVar[frozenset[str]] = frozenset()

    def updated(self, given: Mapping[str, object]) -> Self:
        """These attributes with the given ones changed; Invalid for a value of the wrong type."""
        changes: dict[str, object] = {}
        for field in fields(self):
            if field.name in given and given[field.name] is not None:
                changes[field.name] = _checked(field.name, given[field.name], type(field.default))
        after = replace(self, **changes)
        after.check()
        return after

    def check(self) -> None:
        """Raise Invalid for values that make no sense together."""

    def to_json(self) -> dict[str, object]:
        """The attributes as the API shows them."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in self.ours or getattr(self, field.name) != field.default
        }


def _checked(name: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise Invalid(f"json: cannot unmarshal {_shown(value)} into Go struct field .attributes.{name} of type {_GO[kind]}")
    if kind is int and isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise Invalid(f"json: cannot unmarshal number {value} into Go struct field .attributes.{name} of type int64")
    return value


_GO: dict[type, str] = {int: "int64", float: "float64", str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]string"}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return f"number {value}" if isinstance(value, float) else "number"
    return {str: "string", dict: "object", list: "array"}.get(type(value), "value")
