"""Runs Go's own tools on the modules of sdk/go, without any download but of what their go.sum names."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

__all__ = ["MODULES", "SDK", "build", "build_elsewhere", "go"]

SDK = Path(__file__).resolve().parents[2] / "sdk" / "go"
MODULES = (".", "grpcchaos", "routers")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "programs" / "go-build"
RUN_SECONDS_MAX = 400


def go(module: str, *arguments: str) -> str:
    """What `go ARGUMENTS` says in a module; a failure is the test's, a missing Go or dependency a reason to skip it."""
    program = _program()
    _have_dependencies(module)
    done = _run(program, module, *arguments)
    assert done.returncode == 0, f"go {' '.join(arguments)} in sdk/go/{module}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(module: str, package: str, target: Path) -> Path:
    """The built program of a package."""
    go(module, "build", "-o", str(target), package)
    return target


def build_elsewhere(source: str, folder: Path) -> None:
    """Build a program in a module of its own, which replaces squallchaos as the README says."""
    _have_dependencies("grpcchaos")
    folder.mkdir()
    needed = (SDK / "grpcchaos" / "go.mod").read_text()
    needed = needed.replace("module squall.dev/squallchaos/grpcchaos", "module example.org/orders").replace(
        "=> ../", f"=> {SDK}"
    )
    needed += f"\nrequire squall.dev/squallchaos/grpcchaos v0.1.0\nreplace squall.dev/squallchaos/grpcchaos => {SDK}/grpcchaos\n"
    (folder / "go.mod").write_text(needed)
    shutil.copy(SDK / "grpcchaos" / "go.sum", folder / "go.sum")
    (folder / "main.go").write_text(source)
    for command in (["vet", "."], ["build", "-o", "program", "."]):
        done = _run(_program(), str(folder), *command)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def _program() -> str:
    program = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if program is None:
        pytest.skip("needs Go 1.23 or newer: put `go` on PATH, or apt-get install golang-go")
    return program


@cache
def _have_dependencies(module: str) -> None:
    done = _run(_program(), module, "mod", "download")
    if done.returncode:
        pytest.skip(
            f"needs what sdk/go/{module}/go.mod names, or a newer Go: `go mod download` there; {done.stderr[-300:]}"
        )


def _run(program: str, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off",
        "GOCACHE": os.environ.get("GOCACHE", str(CACHE)), "SQUALL_CHAOS": "",
    }  # fmt: skip
    return subprocess.run(
        [program, *arguments], cwd=SDK / module, env=environment, capture_output=True, text=True,
        timeout=RUN_SECONDS_MAX, check=False,
    )  # fmt: skip
