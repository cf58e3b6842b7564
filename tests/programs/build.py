"""Builds the programs that tests hit, once for each state of their sources, into the checkout's cache folder.

`NAME.go` or the folder `NAME/` is a Go program (static, without cgo: `go.mod` here names no other module), `NAME.c` a
C program. A test that needs a compiler which is not there is skipped and says how to get it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

__all__ = ["c_program", "go_program"]

SOURCES = Path(__file__).resolve().parent
CACHE = SOURCES.parents[1] / ".cache" / "programs"
BUILD_SECONDS_MAX = 300


def go_program(name: str, *, flags: tuple[str, ...] = ()) -> Path:
    """The built static Go program of `tests/programs/NAME.go` or `NAME/`; `flags` go to `go build` ("-ldflags=-s -w")."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip(f"needs Go to build {name}: apt-get install golang-go, or put `go` on PATH")
    folder = SOURCES / name
    sources = sorted(folder.glob("*.go")) if folder.is_dir() else [SOURCES / f"{name}.go"]
    what = [f"./{name}"] if folder.is_dir() else [sources[0].name]
    environment = {
        **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOPROXY": "off", "GOTOOLCHAIN": "local",
        "GOWORK": "off", "GOCACHE": os.environ.get("GOCACHE", str(CACHE / "go-build")),
    }  # fmt: skip
    return _built(
        name, (*sources, SOURCES / "go.mod"), (go, "build", "-trimpath", *flags, "-o"), tuple(what), environment
    )


def c_program(name: str, *, flags: tuple[str, ...] = ()) -> Path:
    """The built C program of `tests/programs/NAME.c`; `flags` go to the compiler after -O2 -pthread ("-static")."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip(f"needs a C compiler to build {name}: apt-get install gcc libc6-dev")
    source = SOURCES / f"{name}.c"
    command = (compiler, "-std=gnu11", "-O2", "-Wall", "-Werror", "-pthread", *flags, "-o")
    return _built(name, (source,), command, (source.name,), dict(os.environ))


def _built(
    name: str,
    sources: tuple[Path, ...],
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    environment: dict[str, str],
) -> Path:
    """`command OUTPUT arguments`, unless it was run before on these very sources; by one test process at a time."""
    digest = hashlib.sha256("\0".join((_version(command[0]), *command[1:], *arguments)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    target = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            done = subprocess.run(
                [*command, str(partial), *arguments], cwd=SOURCES, env=environment, capture_output=True, text=True,
                timeout=BUILD_SECONDS_MAX, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{name} could not be built:\n{done.stderr}"
            partial.replace(target)
    return target


@cache
def _version(compiler: str) -> str:
    word = "version" if Path(compiler).name == "go" else "--version"
    return subprocess.run([compiler, word], capture_output=True, text=True, check=True).stdout
