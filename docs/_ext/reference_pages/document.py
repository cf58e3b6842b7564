"""The experiment document, key by key, from the models that read it."""

from __future__ import annotations

from reference_pages.schema import Schema, prose, table
from squall.experiment.model import API_VERSION, Experiment

__all__ = ["pages"]

_NOT_KEYS = frozenset({"name"})
"""In the document a run's name stands in `metadata`."""

_STEP_NOTE = "Which keys a fault itself has stands in the page of [each fault](faults.md)."

_FROM_THE_EXPERIMENT = frozenset({"targets", "duration"})
"""Keys of a step that the experiment says where the step does not."""


def pages() -> dict[str, str]:
    """`document.md`."""
    schema = Experiment.model_json_schema(by_alias=True)
    models: dict[str, Schema] = {name: each for name, each in schema["$defs"].items() if name != "Fault"}
    anchors = {name: f"#{name.lower()}" for name in models}
    parts = [
        "# The experiment document",
        (
            "YAML or JSON. Every problem of a document is reported at once, each with its file, line, path, what is wrong and what "
            "is allowed, and nothing is touched. `squall schema` prints the JSON Schema, which an editor can use."
        ),
        f"```yaml\napiVersion: {API_VERSION}\nkind: Experiment\nmetadata: {{name: NAME}}\nspec: {{...}}\n```",
        "## spec",
        table(schema, anchors, without=_NOT_KEYS),
    ]
    for name, model in models.items():
        parts.append(f"## {name}")
        if "description" in model:
            parts.append(prose(model["description"]))
        if name == "FaultStep":
            parts.append(_STEP_NOTE)
            model["required"] = [key for key in model["required"] if key not in _FROM_THE_EXPERIMENT]
        parts.append(table(model, anchors, without=frozenset({"fault"})))
    return {"document.md": "\n\n".join(parts) + "\n"}
