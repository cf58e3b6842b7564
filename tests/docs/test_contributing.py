"""CONTRIBUTING.md's "How to add a fault", followed to the letter on a copy of the tree, gives a fault that works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_PLACE = re.compile(r"# (?P<file>[\w./]+\.py)(?:, (?P<how>at the end|after: |before: |instead of: )(?P<anchor>.*))?\n")


def follow(text: str, tree: Path) -> list[Path]:
    """Do what the Python blocks of a text say, and return the files that were touched."""
    touched = []
    for block in blocks_of(text):
        if block.language != "python" or not (place := _PLACE.match(block.text)):
            continue
        path, body = tree / place["file"], block.text[place.end() :]
        match place["how"]:
            case None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body)
            case "at the end":
                path.write_text(path.read_text().rstrip("\n") + "\n\n\n" + body)
            case how:
                before = path.read_text().splitlines(keepends=True)
                anchor = place["anchor"] + "\n"
                assert before.count(anchor) == 1, (
                    f"CONTRIBUTING.md line {block.line}: {path.name} has no such line: {anchor}"
                )
                at = before.index(anchor)
                above, below = [anchor] if how == "after: " else [], [anchor] if how == "before: " else []
                path.write_text("".join([*before[:at], *above, body, *below, *before[at + 1 :]]))
        touched.append(path)
    return touched


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources in which the section was followed."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("src", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "generated"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "tests").mkdir()
    follow((ROOT / "CONTRIBUTING.md").read_text(), copy)
    return copy


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }  # it is a copy that runs
    env = {**bare, "PYTHONPATH": str(tree / "src")}
    return subprocess.run(
        [sys.executable, *command], cwd=tree, env=env, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_worked_example_passes_its_own_test(tree: Path) -> None:
    done = run(tree, "-m", "pytest", "-q", "tests/actions")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_worked_example_keeps_the_style(tree: Path) -> None:
    new = [str(path.relative_to(tree)) for path in tree.rglob("*oom*.py")]
    assert len(new) == 3
    done = run(tree, "-m", "ruff", "check", "--no-cache", *new)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_worked_example_has_its_types_right(tree: Path) -> None:
    done = run(
        tree,
        "-m",
        "mypy",
        "src/squall/faults/process.py",
        "src/squall/injectors/oom_score.py",
        "src/squall/actions/oom_score.py",
    )
    assert "oom_score.py" not in done.stdout, done.stdout
    assert "faults/process.py" not in done.stdout, done.stdout


def test_the_new_fault_has_a_page_in_the_reference(tree: Path) -> None:
    page = "from reference_pages import faults; print(faults.pages()['faults/process.oom_first.md'])"
    done = run(tree, "-c", f"import sys; sys.path.insert(0, 'docs/_ext'); {page}")
    assert done.returncode == 0, done.stderr
    assert "| `certainty` | ratio, 1% to 100% | `100%` |" in done.stdout
