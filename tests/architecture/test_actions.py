"""Every step that can change a machine is undone by a test."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from squall.actions import ACTIONS, Action

if TYPE_CHECKING:
    from pathlib import Path


def names_in(folder: Path) -> set[str]:
    """Every name and attribute that the tests of a folder use."""
    trees = [ast.parse(path.read_text()) for path in folder.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("action", ACTIONS.values(), ids=list(ACTIONS))
def test_an_action_has_a_file_of_its_own_and_tests(root: Path, action: type[Action]) -> None:
    assert (root / "src" / "squall" / "actions" / f"{action.kind.replace('-', '_')}.py").is_file()
    assert action.__name__ in names_in(root / "tests" / "actions")


@pytest.mark.parametrize("action", ACTIONS.values(), ids=list(ACTIONS))
def test_an_action_says_what_it_does(action: type[Action]) -> None:
    assert action.__doc__
    for method in ("do", "undo", "verify", "objects", "describe", "describe_undo"):
        inherited = any(method in vars(base) for base in action.__mro__ if base is not Action)
        assert inherited, f"{action.__name__} leaves out {method}"
