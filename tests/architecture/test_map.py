"""ARCHITECTURE.md's map is of this tree."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_every_room_is_on_the_map(root: Path) -> None:
    text = (root / "ARCHITECTURE.md").read_text()
    mapped = set(re.findall(r"^  ([a-z]+)(?:/|\.py) ", text, re.MULTILINE))
    inside = (root / "src" / "squall").iterdir()
    rooms = {path.stem for path in inside if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py")}
    assert mapped == rooms


def test_the_layers_on_the_map_are_those_that_are_held(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (held,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    as_written = " > ".join(layer.replace("squall.", "").replace(" : ", ", ") for layer in held)
    assert f"`{as_written}`" in (root / "ARCHITECTURE.md").read_text()


def test_every_dependency_has_its_price(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    priced = set(
        re.findall(r"^\| ([a-z0-9.]+) \| \d+ ms \| [\d.]+ MB \|", (root / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    )
    assert priced == names
