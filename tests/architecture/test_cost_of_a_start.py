"""`squall --version` and `--help` are quick because nothing heavy is imported before a command needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pydantic", "httpx2", "rich", "ruamel", "anyio", "asyncio", "h11", "numpy")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_nothing_heavy_is_imported(option: str) -> None:
    script = f"""
import sys
from squall.cli import main
sys.argv = ["squall", {option!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"
