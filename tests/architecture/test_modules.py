"""Every room says what it is for, what it exports is true, and imports point down only."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import squall

PACKAGE = Path(squall.__file__).parent

STANDARD_LIBRARY_ONLY = ("errors", "units", "kernel", "targets", "workers", "actions", "recovery")
"""What recovers must run where nothing is installed."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
MODULES = [module_name(path) for path in SOURCES]
IMPORTABLE = [name for name in MODULES if not name.endswith("__main__")]


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("name", IMPORTABLE)
def test_what_a_module_exports_is_there(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    assert [each for each in exported if not hasattr(module, each)] == []


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_what_one_room_takes_from_another_is_exported_there(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    taken = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in MODULES and f"{node.module}.".split(".")[1] != room
        for alias in node.names
    }
    hidden = [
        f"{module}.{name}"
        for module, name in sorted(taken)
        if f"{module}.{name}" not in MODULES and name not in getattr(importlib.import_module(module), "__all__", [name])
    ]
    assert hidden == [], "add it to __all__ there"


def test_imports_point_down_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=PACKAGE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", [each for each in IMPORTABLE if each.partition("squall.")[2].partition(".")[0] in STANDARD_LIBRARY_ONLY]
)
def test_what_recovers_imports_with_the_standard_library_alone(name: str) -> None:
    script = f"import sys; sys.path.insert(0, sys.argv[1]); import {name}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(PACKAGE.parent)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
