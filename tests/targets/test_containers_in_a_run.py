"""`squall inject` on a container and on a network namespace: what is measured, what is hit, who is followed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from squall.kernel import cgroups
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SQUALL = [sys.executable, "-m", "squall"]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a Docker would keep its state."""
    config = tmp_path / "config.toml"
    config.write_text(f'[containers]\ndocker = ["{tmp_path}"]\nstorage = []\ncontainerd = []\n')
    monkeypatch.setenv("SQUALL_CONFIG", str(config))
    return tmp_path


@contextlib.contextmanager
def container(parent: Path, docker: Path, name: str) -> Iterator[tuple[Path, specimens.Specimen]]:
    """A cgroup as Docker makes it, with a process in it, and the name written down."""
    id_ = os.urandom(32).hex()
    folder = parent / id_
    state = docker / "containers" / id_ / "config.v2.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"ID": id_, "Name": f"/{name}"}))
    folder.mkdir()
    try:
        with specimens.sleeper() as specimen:
            (folder / "cgroup.procs").write_text(str(specimen.pid))
            yield folder, specimen
    finally:
        specimens.wait_for(lambda: not (folder / "cgroup.procs").read_text(), "nobody is in it")
        folder.rmdir()


@contextlib.contextmanager
def inject(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*SQUALL, "inject", *arguments, "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=60)
    found: dict[str, Any] = json.loads(said)
    return found


def crowded(folder: Path) -> bool:
    """Whether more than the container's own process is in it."""
    return len(cgroups.processes_below([str(folder)])) > 1


@pytest.mark.slow
def test_a_fault_on_a_container_works_in_its_cgroup(docker: Path) -> None:
    plan = ("stress.cpu", "--load", "10%", "--target", "container:shop", "-d", "1s", "--baseline", "300ms")
    with (
        specimens.own_cgroup("cpu") as parent,
        container(parent, docker, "shop") as (folder, specimen),
        inject(*plan) as run,
    ):
        specimens.wait_for(lambda: crowded(folder), "a worker is in its cgroup")
        found = answer(run)
        assert run.returncode == 0, found
        assert cgroups.processes_below([str(folder)]) == [specimen.pid]
        assert f"alive-{specimen.pid}" in json.dumps(found)


def test_a_container_that_restarts_is_followed_by_its_name(docker: Path) -> None:
    """The cgroup of the first is gone, the second has another id: only the name is the same."""
    plan = ("stress.cpu", "--load", "10%", "--target", "container:shop", "-d", "30s", "--baseline", "300ms", "--follow")
    with specimens.own_cgroup("cpu") as parent, contextlib.ExitStack() as exits:
        with container(parent, docker, "shop") as (first, _):
            run = exits.enter_context(inject(*plan))
            specimens.wait_for(lambda: crowded(first), "a worker is in its cgroup")
            for pid in cgroups.processes_below([str(first)]):
                os.kill(pid, 9)
        with container(parent, docker, "shop") as (second, _):
            specimens.wait_for(lambda: crowded(second), "a worker is in the new one")
            run.terminate()
            events = answer(run)
            assert run.returncode == 130, events


def test_a_name_that_matches_several_needs_a_mode(docker: Path) -> None:
    plan = ["stress.cpu", "--load", "10%", "--target", "container:shop", "-d", "1s", "--dry-run"]
    with (
        specimens.own_cgroup("cpu") as parent,
        container(parent, docker, "shop"),
        container(parent, docker, "shop"),
    ):
        done = subprocess.run([*SQUALL, "inject", *plan], capture_output=True, text=True, check=False)
        assert done.returncode == 4
        assert "2 match (container shop (" in done.stderr
        done = subprocess.run([*SQUALL, "inject", *plan, "--mode", "one"], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "container shop (" in done.stdout + done.stderr
