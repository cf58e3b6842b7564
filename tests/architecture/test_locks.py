"""The locks hold on every Python that is supported, with whichever package index, and agree with each other."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from pathlib import Path

PYTHONS = ("3.11.0", "3.11.2", "3.12.0", "3.13.0")
"""3.11.2 is Debian 12's; a patch release can matter to a marker."""

PROVIDED = {"pydantic-core", "pytest"}
"""Imported, and not declared: a part of pydantic; and pytest, for its plugin, by whom it is loaded."""


def locked(root: Path, *names: str) -> dict[str, str]:
    """Package and version of some locks."""
    text = "\n".join((root / f"requirements/{name}.txt").read_text() for name in names)
    return {
        canonicalize_name(package): version
        for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    }


def test_every_locked_requirement_has_hashes_and_no_address(root: Path) -> None:
    for lock in sorted((root / "requirements").glob("*.txt")):
        text = lock.read_text()
        packages = re.findall(r"^[a-z0-9._-]+==[^ \n]+( \\\n    --hash=sha256:[0-9a-f]{64})+$", text, re.MULTILINE)
        assert len(packages) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) > 0, lock.name
        assert "://" not in text, lock.name


def test_locks_that_share_a_package_agree_on_its_version(root: Path) -> None:
    versions: dict[str, set[str]] = {}
    for name in ("base", "dev", "docs"):
        for package, version in re.findall(
            r"^([a-z0-9._-]+)==(\S+)", (root / f"requirements/{name}.txt").read_text(), re.MULTILINE
        ):
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


def test_what_the_project_depends_on_is_locked(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    assert {canonicalize_name(Requirement(each).name) for each in wanted} <= set(locked(root, "base")), (
        "run `make lock`"
    )


@pytest.mark.parametrize("names", [("base",), ("base", "dev")], ids="+".join)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_is_whole_by_itself(root: Path, names: tuple[str, ...], python: str) -> None:
    """They are installed with --no-deps: what a package needs on some Python must be locked too."""
    there = locked(root, *names)
    machine = {"python_version": python.rpartition(".")[0], "python_full_version": python, "extra": ""}
    missing = [
        f"{package} needs {need}"
        for package in there
        for need in map(Requirement, importlib.metadata.requires(package) or ())
        if (need.marker is None or need.marker.evaluate(machine)) and canonicalize_name(need.name) not in there
    ]
    assert missing == [], "name it in requirements/*.in and run `make lock`"


def test_what_is_installed_is_what_is_locked(root: Path) -> None:
    there = locked(root, "base", "dev")
    assert {name: importlib.metadata.version(name) for name in there} == there


def test_every_dependency_is_declared_and_used(root: Path) -> None:
    """What the package imports is what it depends on: a dependency has a price, and none is paid for nothing."""
    trees = [ast.parse(path.read_text()) for path in (root / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"squall", ""}
    distributions = importlib.metadata.packages_distributions()
    providers = {
        name: {canonicalize_name(one) for one in distributions[name]} for name in imported
    }  # several, of a namespace
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    names = {canonicalize_name(Requirement(each).name) for each in declared}
    assert [name for name, by in sorted(providers.items()) if not by & (names | PROVIDED)] == []
    assert names <= set().union(*providers.values())
