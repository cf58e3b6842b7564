"""The files that the house rules are about."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

KEPT = (
    "src",
    "sdk",
    "demo",
    "tests",
    "tools",
    "docs",
    "examples",
    "requirements",
    "changelog.d",
    "deploy",
    "bpf",
    ".ci",
)
"""The folders of the repository; everything else in a checkout is made by tools and ignored by git."""

MADE = {"__pycache__", "_build", "generated", "node_modules"}


def repository_files() -> list[Path]:
    """Every file that belongs to the repository, relative to its root, without asking git."""
    top = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".coverage")]
    below = [
        path for folder in KEPT if (ROOT / folder).is_dir() for path in (ROOT / folder).rglob("*") if path.is_file()
    ]
    found = (path.relative_to(ROOT) for path in [*top, *below])
    return sorted(
        path
        for path in found
        if not MADE & set(path.parts) and not any(part.endswith(".egg-info") for part in path.parts)
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the repository, relative to `root`."""
    return repository_files()


@pytest.fixture(scope="session")
def python_files(files: list[Path]) -> list[Path]:
    """Every Python file of the repository, relative to `root`."""
    return [
        path
        for path in files
        if path.suffix == ".py" or path in {Path("tools/debian-cache"), Path("tools/debian-kernels")}
    ]


@pytest.fixture(scope="session")
def package_files(python_files: list[Path]) -> list[Path]:
    """The Python files of the distribution `squall`."""
    return [path for path in python_files if path.parts[:2] == ("src", "squall")]
