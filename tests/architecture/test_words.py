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
    import tomllib

    def canonical(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[ ;<>=!~\[]", requirement, maxsplit=1)[0]).lower()

    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = {canonical(each) for each in [*project["project"]["dependencies"], *project["build-system"]["requires"]]}
    locked = {
        canonical(each)
        for each in re.findall(r"^[a-z0-9._-]+==", (root / "requirements/base.txt").read_text(), re.MULTILINE)
    }
    assert wanted <= locked, "run `make lock`"
