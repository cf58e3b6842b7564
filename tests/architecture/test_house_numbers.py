"""Files and functions stay small enough to read in one sitting."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

FILE_LINES_MAX = 500
FILE_LINES_AIM = 300
FUNCTION_LINES_MAX = 60


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_file_is_longer_than_it_may_be(
    root: Path, python_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = {str(path): len((root / path).read_text().splitlines()) for path in python_files}
    above_aim = sorted((count, path) for path, count in lengths.items() if count > FILE_LINES_AIM)
    with capsys.disabled():
        said = ", ".join(f"{path} {count}" for count, path in above_aim)
        print(f"\nlonger than the {FILE_LINES_AIM} lines aimed at: {said or 'none'}")  # noqa: T201 - a report
    assert [path for path, count in lengths.items() if count > FILE_LINES_MAX] == []


def test_no_function_is_longer_than_it_may_be(root: Path, python_files: list[Path]) -> None:
    long = [
        f"{path}:{node.lineno} {node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for path in python_files
        for node in functions(ast.parse((root / path).read_text()))
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []
