"""What a file may not be called, and what may not stand in one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "types", "base_utils"}

# Each with a letter in brackets, so that this file does not hold what it forbids.
FORBIDDEN_TEXT = {
    "the host of a package index": r"py[p]i\.(org|io|python)|pythonho[s]ted\.org|--(extra-)?index-[u]rl\b|--trusted-[h]ost\b",
    "a path of one person's machine": r"(?<![\w.{}$*/-])/([w]ork/|[r]oot/|[h]ome/[a-z]+/|[o]pt/wheels|[t]mp/\w)",
    "how the text was written": r"(?i)\b([c]laude|[c]hatgpt|[a]nthropic|[o]penai|[c]opilot|[l]lm|language [m]odel|[a]i assistant)\b",
}

UNREAD = {".png", ".svg", ".ico", ".woff2", ".o"}


def test_no_module_has_a_name_that_says_nothing(package_files: list[Path]) -> None:
    assert [str(path) for path in package_files if {path.stem, *path.parts[2:-1]} & FORBIDDEN_NAMES] == []


def test_no_file_holds_what_does_not_belong_in_it(root: Path, files: list[Path]) -> None:
    found = [
        f"{path}:{number}: {what}: {line.strip()[:100]}"
        for path in files
        if path.suffix not in UNREAD
        for number, line in enumerate((root / path).read_text(errors="replace").splitlines(), start=1)
        for what, pattern in FORBIDDEN_TEXT.items()
        if re.search(pattern, line)
    ]
    assert found == []
