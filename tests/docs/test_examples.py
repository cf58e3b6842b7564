"""Every document that the docs show, whole or in part, is one that Squall reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from squall.errors import InputError
from squall.experiment.document import read_experiment
from squall.experiment.model import Experiment
from squall.standins.script import parse_script
from squall_resilience import PolicySettings, PoolSettings
from tests.docs.blocks import blocks_of

ROOT = Path(__file__).resolve().parents[2]
SPEC_KEYS = {field.alias or name for name, field in Experiment.model_fields.items()} - {"name"}

sys.path.insert(0, str(ROOT / "docs" / "_ext"))
import reference_pages  # noqa: E402 - found by the line above

DOCUMENTS = {
    **{
        str(path.relative_to(ROOT)): path.read_text()
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    },
    **{f"docs/reference/generated/{name}": text for name, text in reference_pages.pages().items()},
}
SHOWN = [
    pytest.param(block.text, id=f"{name}:{block.line}")
    for name, text in DOCUMENTS.items()
    for block in blocks_of(text)
    if block.language == "yaml"
]


def completed(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a spec as a whole one."""
    route = {"route": {"listen": "127.0.0.1:8081", "upstream": "127.0.0.1:8080"}}
    whole: dict[str, Any] = {"duration": "1m", **part}
    if "faults" not in whole:
        whole["faults"] = [{"type": "tcp.down" if "route" in whole.get("targets", {}) else "process.pause"}]
    if "targets" not in whole and not all("targets" in fault for fault in whole["faults"]):
        of_routes = any(fault["type"].startswith(("tcp.", "http.", "grpc.")) for fault in whole["faults"])
        whole["targets"] = route if of_routes else {"process": {"command": "my-service"}}
    return whole


def read(text: str) -> None:
    """Read what a block shows as what it is; raises whatever the reader raises."""
    data = YAML(typ="safe").load(text.replace("{...}", "{}"))
    if data is None or data.keys() <= {"headers"} or data.get("spec") == {} or "wrong.yaml" in text:
        return  # a comment, a piece of a request, an outline; one that is wrong on purpose
    if data.keys() & {"dependencies", "pools"}:
        for of, section in ((PolicySettings, "dependencies"), (PoolSettings, "pools")):
            for name, given in data.get(section, {}).items():
                assert of.read(given, f"{section}.{name}")[1] == []
        return
    if data.keys() & {"rule_files", "scrape_configs", "providers", "datasources"}:
        return  # Prometheus's or Grafana's own
    if "expectations" in data:
        parse_script(data)
        return
    if data.keys() <= {"http", "tcp", "process", "command", "prometheus"}:
        data = {"steadyState": [{"name": "shown", **data}]}
    part = data if data.keys() <= SPEC_KEYS else data["spec"]
    whole = data["spec"] if "apiVersion" in data else completed(part)
    document = {"apiVersion": "squall.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "shown"}, "spec": whole}
    assert read_experiment(json.dumps(document)).faults


@pytest.mark.parametrize("text", SHOWN)
def test_a_document_that_is_shown_can_be_read(text: str) -> None:
    read(text)


def test_one_that_could_not_be_read_would_be_seen() -> None:
    with pytest.raises(InputError, match="latancy"):
        read("faults: [{type: tcp.latency, latancy: 3s}]")
