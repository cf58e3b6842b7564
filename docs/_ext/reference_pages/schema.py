"""JSON Schema, as pydantic makes it from the models, in the words of a reference page."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["Schema", "default", "prose", "table", "words"]

Schema = dict[str, Any]

_SIMPLE = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "nothing",
}
_QUANTITIES = {"Duration", "Offset", "Drift", "Ratio", "Bandwidth", "Size", "Rate"}


def prose(text: str) -> str:
    """A docstring as Markdown: its line breaks are no breaks, its paragraphs are."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def words(schema: Schema, anchors: dict[str, str]) -> str:
    """What a value may be: "duration, 1ms to 1h"; `anchors` maps a model's name to where it is described."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}]({anchors[name]})" if name in anchors else name
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if several := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        said = dict.fromkeys(words(each, anchors) for each in several if each.get("type") != "null")
        return " or ".join(said)
    if schema.get("title") in _QUANTITIES:
        return schema["title"].lower() + _range(schema, "x-squall-minimum", "x-squall-maximum")
    return _plain(schema, anchors)


def _plain(schema: Schema, anchors: dict[str, str]) -> str:
    match schema.get("type"):
        case "array":
            inner = words(schema["items"], anchors) if "items" in schema else "anything"
            return f"list of {inner}" + _range(schema, "minItems", "maxItems", "entries")
        case "object":
            inner = schema.get("additionalProperties")
            return "mapping" + (f" to {words(inner, anchors)}" if isinstance(inner, dict) and inner else "")
        case "string":
            return "text" + _range(schema, "minLength", "maxLength", "characters")
        case "integer" | "number":
            limits = dict(schema)
            if "exclusiveMaximum" in schema:  # only whole numbers have one
                limits["maximum"] = schema["exclusiveMaximum"] - 1
            return _SIMPLE[schema["type"]] + _range(limits, "minimum", "maximum")
        case str(kind):
            return _SIMPLE[kind]
        case _:
            return "any JSON value"


def _range(schema: Schema, least: str, most: str, noun: str = "") -> str:
    low, high = schema.get(least), schema.get(most)
    after = f" {noun}" if noun else ""
    if low is not None and high is not None:
        return f", {low} to {high}{after}"
    if high is not None:
        return f", at most {high}{after}"
    if low not in {None, 0, 1}:
        return f", at least {low}{after}"
    return ""


def default(schema: Schema, *, required: bool) -> str:
    """The default as one would write it in a document; "required" where there is none, "-" where absence is meant."""
    if required:
        return "required"
    value = schema.get("default")
    if value is None or value in ({}, [], ""):
        return "-"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def table(schema: Schema, anchors: dict[str, str], without: frozenset[str] = frozenset()) -> str:
    """The fields of an object as a Markdown table."""
    required = set(schema.get("required", ()))
    rows = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        if name in without:
            continue
        cells = (
            f"`{name}`", words(field, anchors), default(field, required=name in required), prose(field.get("description", "")),
        )  # fmt: skip
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows) if len(rows) > 2 else "It has no keys of its own."  # noqa: PLR2004 - the head
