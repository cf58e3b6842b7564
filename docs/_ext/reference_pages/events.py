"""The events of a run, from their classes and the docstrings of their fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect

from reference_pages.schema import prose
from squall import events

__all__ = ["pages"]


def _field_docs(cls: type) -> dict[str, str]:
    """The string below each field of a class, as it stands in the source."""
    (definition,) = (node for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: prose(text.value.value)
        for field, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _section(name: str, cls: type) -> str:
    docs = _field_docs(cls)
    rows = [
        f"| `{field.name}` | `{str(field.type).replace('|', chr(92) + '|')}` | {docs.get(field.name, '')} |"
        for field in dataclasses.fields(cls)
    ]
    fields = "\n".join(["| Field | Type | Meaning |", "|---|---|---|", *rows]) if rows else ""
    return f"## {name}\n\n{prose(cls.__doc__ or '')}\n\n{fields}".rstrip()


def pages() -> dict[str, str]:
    """`events.md`."""
    parts = [
        "# Events",
        (
            "Everything that happens in a run is one line of JSON in the run's `events.jsonl`. Each line holds the fields of its "
            "[stamp](#stamp), the `kind`, and the fields of that kind. Progress, reports and comparisons are made from this file "
            "alone. A reader must pass over kinds and fields that it does not know."
        ),
        _section("Stamp", events.Stamp),
        *(_section(kind, cls) for kind, cls in events.KINDS.items()),
        _section("Finding", events.Finding),
    ]
    return {"events.md": "\n\n".join(parts) + "\n"}
