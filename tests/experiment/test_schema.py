"""The JSON Schema of the document: valid itself, whole, and good for an editor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from squall.documents import load
from squall.experiment.document import read_experiment
from squall.experiment.model import STEP_KEYS, Experiment
from squall.experiment.schema import DIALECT, document_schema
from squall.faults import FAULTS

SCHEMA = document_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "write-an-experiment.md"


def document(**spec: Any) -> dict[str, Any]:
    given = {"duration": "20s", "targets": {"process": {"command": "shop"}}, "faults": [{"type": "process.pause"}]}
    return {"apiVersion": "squall.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "it"}, "spec": given | spec}


def errors(given: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(given)]


def test_it_is_a_schema_of_the_dialect_that_it_says() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == DIALECT
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert document_schema() is not document_schema(), "a caller may change what it gets"


def test_it_has_every_key_of_a_spec_and_of_every_fault() -> None:
    keys = {info.alias or name for name, info in Experiment.model_fields.items()} - {"name"}
    assert set(SCHEMA["$defs"]["Experiment"]["properties"]) == keys
    for tag, model in FAULTS.items():
        own = {info.alias or name for name, info in model.model_fields.items()}
        assert set(SCHEMA["$defs"][tag]["properties"]) == {"type", *own, *STEP_KEYS}
        assert SCHEMA["$defs"][tag]["additionalProperties"] is False


def test_it_explains_every_fault_and_nearly_every_key() -> None:
    for tag in FAULTS:
        assert SCHEMA["$defs"][tag]["description"]
        for key, node in SCHEMA["$defs"][tag]["properties"].items():
            assert key == "type" or node.get("description"), f"{tag}: {key} is not explained"
    for key, node in SCHEMA["$defs"]["Experiment"]["properties"].items():
        assert node.get("description"), f"{key} is not explained"


def test_it_has_no_reference_that_leads_nowhere_and_no_definition_that_nothing_uses() -> None:
    used = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(SCHEMA)))
    assert used == set(SCHEMA["$defs"])


def test_the_least_and_a_fuller_document_are_valid() -> None:
    assert errors(document()) == []
    full = document(
        load=None,
        steadyState=[
            {"name": "a", "http": {"url": "http://x", "body": {"a": [1]}, "headers": {"A": {"env": "B"}}}, "p95": None}
        ],
        faults=[{"type": "process.pause", "after": "1s", "duration": "2s", "pulse": {"on": "500ms", "off": "500ms"}}],
        tolerate={"p95": "1s", "exceptFor": "0s"},
        seed=0,
    )
    assert errors(full) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"sede": 1}, "$.spec: Additional properties are not allowed ('sede' was unexpected)"),
        ({"duration": 20}, "$.spec.duration: 20 is not of type 'string'"),
        ({"seed": -1}, "$.spec.seed: -1 is less than the minimum of 0"),
        ({"faults": []}, "$.spec.faults: [] should be non-empty"),
        ({"faults": [{"type": "tcp.down", "x": 1}]}, "$.spec.faults[0]: Additional properties are not allowed ('x' was unexpected)"),
        ({"faults": [{"type": "tcp.latency"}]}, "$.spec.faults[0]: 'latency' is a required property"),
        ({"faults": [{"type": "http.abort", "status": 99}]}, "$.spec.faults[0].status: 99 is less than the minimum of 200"),
        ({"faults": [{}]}, "$.spec.faults[0]: 'type' is a required property"),
        ({"faults": [7]}, "$.spec.faults[0]: 7 is not of type 'object'"),
        ({"tolerate": {"errorRate": 0.02}}, "$.spec.tolerate.errorRate: 0.02 is not of type 'string'"),
    ],
)  # fmt: skip
def test_a_mistake_in_shape_is_one_error_where_it_is(spec: dict[str, Any], message: str) -> None:
    assert errors(document(**spec)) == [message]


def test_an_unknown_fault_is_answered_with_those_that_there_are() -> None:
    (message,) = errors(document(faults=[{"type": "process.paus"}]))
    assert message.startswith("$.spec.faults[0].type: 'process.paus' is not one of ['dns.error', ")


def test_a_fault_needs_targets_from_somewhere() -> None:
    spec = document()
    del spec["spec"]["targets"]
    assert errors(spec) == ["$.spec.faults[0]: 'targets' is a required property"]
    spec["spec"]["faults"][0]["targets"] = {"process": {"command": "shop"}}
    assert errors(spec) == []


def test_the_how_tos_documents_are_right() -> None:
    texts = re.findall(r"```yaml\n([^#].*?)```", HOW_TO.read_text(), re.DOTALL)
    blocks = [load(text, "how-to").value for text in texts]
    whole = next(block for block in blocks if isinstance(block, dict) and "apiVersion" in block)
    parts = [block["spec"] for block in blocks if isinstance(block, dict) and "spec" in block]
    route = {"route": {"listen": "127.0.0.1:18083", "upstream": "127.0.0.1:8083"}}
    assert len(parts) == 3
    for spec in parts:
        on_route = any(step["type"].startswith("tcp.") for step in spec.get("faults", []))
        given = {**whole, "spec": {**whole["spec"], **({"targets": route} if on_route else {}), **spec}}
        assert errors(given) == []
        read_experiment(json.dumps(given))
