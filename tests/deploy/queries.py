"""Every query of the boards and of the rules, as Prometheus is asked for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from tests.deploy.conftest import DEPLOY, RATE_WINDOW

__all__ = ["BOARDS", "Query", "board_queries", "boards", "rules"]

BOARDS = sorted(path.name for path in (DEPLOY / "grafana").glob("*.json"))


@dataclass(frozen=True)
class Query:
    """One query: where it stands, and what it asks."""

    board: str
    title: str
    number: int
    expression: str

    @property
    def scaled(self) -> str:
        """With the variables as "All" has them, and the windows of a Prometheus that scrapes each second."""
        return self.chosen(".+")

    def chosen(self, what: str) -> str:
        """With these services and dependencies chosen."""
        text = self.expression.replace("$__rate_interval", RATE_WINDOW)
        return re.sub(r"\$\{?(service|dependency)\}?", what, text)


def boards() -> dict[str, dict[str, Any]]:
    """All boards by file name."""
    return {name: json.loads((DEPLOY / "grafana" / name).read_text()) for name in BOARDS}


def board_queries() -> list[Query]:
    """Of every panel and annotation of every board."""
    found = []
    for name, board in boards().items():
        for panel in board["panels"]:
            found += [
                Query(name, panel["title"], number, target["expr"]) for number, target in enumerate(panel["targets"])
            ]
        found += [
            Query(name, f"annotation: {one['name']}", 0, one["expr"])
            for one in board["annotations"]["list"]
            if "expr" in one
        ]
    return found


def rules() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    document = YAML(typ="safe", pure=True).load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}
