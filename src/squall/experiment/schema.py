"""The JSON Schema (2020-12) of the experiment document, generated from the models, for editors and other programs.

It accepts every document that `read_experiment` accepts and refuses what is wrong in shape: unknown keys, types,
spellings, patterns, missing parts. Sums and comparisons (a fault that outlasts the experiment, a duration out of its
range) are beyond a schema; ranges of quantities stand in it as `x-squall-minimum` and `x-squall-maximum`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall.experiment.document import KIND
from squall.experiment.model import API_VERSION, FAULTS_MAX, SELECTORS, STEP_KEYS, Experiment
from squall.faults import FAULTS, fault_types

if TYPE_CHECKING:
    from squall.faults import Fault

__all__ = ["DIALECT", "document_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]
"""JSON Schema is JSON: its shape is the standard's, not ours."""

_EXACTLY_ONE = {
    "Targets": SELECTORS,
    "Expectation": ("http", "tcp", "process", "command", "prometheus"),
    "ProcessSelector": ("pid", "command", "port", "unit"),
    "ProcessQuery": ("pid", "command", "port", "unit"),
    "Secret": ("env", "file"),
}
_QUANTITIES = ("Duration", "Offset", "Drift", "Ratio", "Bandwidth", "Size", "Rate")


def document_schema() -> Schema:
    """The schema of a whole document; a new value at each call."""
    spec: Schema = Experiment.model_json_schema()
    definitions: Schema = spec.pop("$defs")
    del definitions["Fault"]
    name = spec["properties"].pop("name")
    spec["required"].remove("name")
    spec["properties"]["faults"] |= {"minItems": 1, "maxItems": FAULTS_MAX}
    definitions["FaultStep"] = _step(definitions["FaultStep"])
    for tag, model in sorted(FAULTS.items()):
        definitions[tag] = _fault(tag, model, definitions["FaultStep"])
    definitions["FaultStep"].pop("properties")
    definitions["FaultStep"]["properties"] = {"type": {"enum": fault_types(), "description": "What goes wrong."}}
    for holder, keys in _EXACTLY_ONE.items():
        definitions[holder]["oneOf"] = [_given(key) for key in keys]
    has_targets = _given("targets")
    spec["if"], spec["then"] = {"not": has_targets}, {"properties": {"faults": {"items": {"required": ["targets"]}}}}
    definitions["Experiment"] = spec
    document: Schema = {
        "$schema": DIALECT,
        "$id": f"urn:squall:{API_VERSION.replace('/', ':')}:{KIND}",
        "title": "Squall experiment",
        "description": "One chaos experiment: what is hit, by what, and what must hold before, during and after.",
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "The version of this format."},
            "kind": {"const": KIND, "description": "What this document is."},
            "metadata": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {"name": name},
            },
            "spec": {"$ref": "#/$defs/Experiment"},
        },
        "$defs": dict(sorted(definitions.items())),
    }
    tidy: Schema = _tidy(document)
    return tidy


def _given(key: str) -> Schema:
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


def _step(step: Schema) -> Schema:
    """A fault step: `type` decides by which definition the whole step is judged."""
    return {
        "description": step["description"],
        "type": "object",
        "required": ["type"],
        "properties": {key: value for key, value in step["properties"].items() if key in STEP_KEYS},
        "allOf": [
            {
                "if": {"type": "object", "required": ["type"], "properties": {"type": {"const": tag}}},
                "then": {"$ref": f"#/$defs/{tag}"},
            }
            for tag in fault_types()
        ],
    }


def _fault(tag: str, model: type[Fault], step: Schema) -> Schema:
    """A step with this fault: its own keys and the step's."""
    own: Schema = model.model_json_schema()
    return {
        "title": tag,
        "description": own["description"],
        "type": "object",
        "additionalProperties": False,
        "required": ["type", *own.get("required", [])],
        "properties": {"type": {"const": tag}, **own["properties"], **step["properties"]},
    }


def _tidy(node: Any) -> Any:
    """Titles that only repeat a key are left out, and `X or null` is said the way editors explain best."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {key: _tidy(value) for key, value in node.items()}
    if isinstance(tidied.get("properties"), dict):
        tidied["properties"] = {key: _without_title(value) for key, value in tidied["properties"].items()}
    return _nullable(tidied)


def _without_title(node: Schema) -> Schema:
    kept = {key: value for key, value in node.items() if key != "title" or value in _QUANTITIES}
    if kept.get("default", ...) is None:
        del kept["default"]
    return kept


def _nullable(node: Schema) -> Schema:
    choices = node.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices or len(choices) != 2:  # noqa: PLR2004 - X or null
        return node
    (other,) = [choice for choice in choices if choice != {"type": "null"}]
    if not isinstance(other.get("type"), str):
        return node
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    merged = {**other, **rest, "type": [other["type"], "null"]}
    return {**merged, "enum": [*merged["enum"], None]} if "enum" in merged else merged
