"""What is called through a pattern keeps its signature for type checkers: `signatures/` is checked by both of them.

A line there that must be wrong says so to each (`type: ignore[...]` to mypy, `pyright: ignore[...]` to the other), and
each complains when it finds nothing wrong there.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SIGNATURES = HERE / "signatures"
SOURCES = HERE.parents[2] / "sdk" / "python" / "src"
PATTERNS = sorted(each.stem for each in SIGNATURES.glob("*.py"))

pytestmark = pytest.mark.slow


def needed(checker: str) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not here: run tools/setup dev (`make test` does)")


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> str:
    needed("mypy")
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "mypy.ini").write_text("[mypy]\n")
    options = ["--strict", "--warn-unused-ignores", "--no-error-summary", "--cache-dir", str(folder / "cache")]
    command = [sys.executable, "-m", "mypy", "--config-file", str(folder / "mypy.ini"), *options, str(SIGNATURES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    needed("basedpyright")
    folder = tmp_path_factory.mktemp("pyright")
    settings = {
        "include": [str(SIGNATURES)],
        "extraPaths": [str(SOURCES)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportUnusedFunction": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] >= len(PATTERNS)
    found: list[dict[str, str]] = said["generalDiagnostics"]
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_mypy_sees_the_signatures(mypy: str, pattern: str) -> None:
    wrong = [line for line in mypy.splitlines() if f"{SIGNATURES.name}/{pattern}.py" in line]
    assert wrong == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pyright_sees_the_signatures(pyright: list[dict[str, str]], pattern: str) -> None:
    wrong = [f"{each['range']}: {each['message']}" for each in pyright if each["file"].endswith(f"/{pattern}.py")]
    assert wrong == []


def test_mypy_is_clean_elsewhere(mypy: str) -> None:
    """An error outside of these files (a module that is not found) would make all of them pass unseen."""
    assert [line for line in mypy.splitlines() if ": error:" in line and "/signatures/" not in line] == []


def test_a_lost_signature_would_be_seen(tmp_path: Path) -> None:
    """The checker is not simply content with everything."""
    needed("mypy")
    lost = (SIGNATURES / "breaker.py").read_text().replace("@breaker\n", "@lost\n", 1)
    (tmp_path / "lost.py").write_text(
        lost.replace("@lost\n", "def lost(call: Callable[..., Any]) -> Any: return call\n\n\n@lost\n", 1)
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "lost.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert "assert-type" in done.stdout
    assert "unused-ignore" in done.stdout
