"""`squall kernels` boots what it is given, tries everything there, and tells it as a table or as JSON."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import InputError
from squall.kernel.bpf.objects import names
from squall.lab.marked import MarkedTests
from squall.lab.one_case import chosen

if TYPE_CHECKING:
    from squall.lab import Kernel

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import os, platform, pytest

@pytest.mark.kernel
def test_release():
    assert platform.release() == {release!r}

@pytest.mark.kernel
@pytest.mark.parametrize("case", range(50))
def test_many(case):
    assert 0 <= case < 50

@pytest.mark.kernel
def test_fails():
    assert os.getppid() < 0, "as it should"

@pytest.mark.kernel
@pytest.mark.skip(reason="for a reason")
def test_left_out(): ...

@pytest.mark.kernel
@pytest.mark.slow
def test_slow():
    raise RuntimeError("it takes too long in a guest")

def test_unmarked():
    raise RuntimeError("it was not asked for")
"""


def kernels(*words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squall", "kernels", *words]
    env = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def test_a_kernel_that_is_not_there_is_wrong_input() -> None:
    done = kernels("2.4")
    assert done.returncode == 2
    assert "there is no kernel '2.4'" in done.stderr


def test_without_any_kernel_it_says_how_to_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_KERNELS", str(tmp_path))
    done = kernels()
    assert (done.returncode, "tools/debian-kernels" in done.stderr) == (4, True)


def test_only_files_with_marked_tests_are_collected(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("pytestmark = [pytest.mark.slow, pytest.mark.kernel]")
    (tmp_path / "test_two.py").write_text("about the kernel")
    assert MarkedTests(tmp_path, 1).files() == [tmp_path / "test_one.py"]
    with pytest.raises(InputError, match="no test marked"):
        MarkedTests(tmp_path / "test_two.py", 1).files()


def test_two_kernels_share_the_files_and_a_single_one_runs_all(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"test_{name}.py").write_text("pytest.mark.kernel")
    every = MarkedTests(tmp_path, 1)
    shares = [every.shared(number, 4).files() for number in range(4)]
    assert shares[0] + shares[1] != shares[0]
    assert sorted(shares[0] + shares[1]) == every.files()
    assert shares[2:] == shares[:2]
    assert every.shared(0, 1).files() == every.files()
    assert MarkedTests(tmp_path, 1, whole=True).shared(1, 4).files() == every.files()


def test_every_test_has_one_case_on_each_kernel_and_not_always_the_same() -> None:
    names = ["a.py::test_one", *(f"a.py::test_many[{case}]" for case in range(7)), "b.py::test_many[0]"]
    seen = [chosen(names, release) for release in ("5.10.0", "6.1.0", "6.12.1", "7.3.4")]
    for one in seen:
        assert {name.partition("[")[0] for name in one} == {"a.py::test_one", "a.py::test_many", "b.py::test_many"}
        assert len(one) == 3
    assert len(set.union(*seen)) > 3
    assert seen[0] == chosen(names, "5.10.0")


@pytest.mark.slow
def test_it_asks_a_kernel_and_runs_the_marked_tests_in_it(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = kernel\n slow\n")
    (tmp_path / "test_it.py").write_text(TESTS.format(release=kernel.release))
    done = kernels(kernel.name, "--json", "--tests", str(tmp_path), "--logs", str(tmp_path / "logs"))
    assert done.returncode == 1, done.stderr
    (said,) = json.loads(done.stdout)["kernels"]
    assert (said["kernel"], said["release"], said["problem"], said["good"]) == (kernel.name, kernel.release, "", False)
    assert "bpf" in said["security"].split(",")
    tests: dict[str, Any] = said["tests"]
    assert (tests["passed"], len(tests["failed"]), len(tests["skipped"])) == (2, 1, 1)
    assert "test_fails: AssertionError: as it should" in tests["failed"][0]
    assert tests["skipped"][0].endswith("test_left_out: for a reason")
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {
        f"{kernel.release}-probe.log", f"{kernel.release}-tests.log",
    }  # fmt: skip
    mechanisms = {fault["name"]: fault["mechanism"] for fault in said["faults"]}
    assert mechanisms["process.pause"] == "sigstop"
    assert [one["name"] for one in said["objects"]] == names()
    for one in said["objects"]:
        assert one["programs"]
        assert all(program["works"] or program["reason"] for program in one["programs"]), one
        assert all(helper["name"].startswith("bpf_") for helper in one["helpers"] if helper["there"])


@pytest.mark.slow
def test_it_prints_a_table(kernel: Kernel) -> None:
    done = kernels(kernel.name)
    assert done.returncode == 0, done.stderr
    assert f"{kernel.release}: asked in " in done.stderr
    lines = done.stdout.splitlines()
    assert any(line.split() == ["process.kill", "signal"] for line in lines)
    for name in names():
        assert any(line.strip().startswith(f"{name} (") for line in lines)
    assert platform.release() not in done.stdout


@pytest.mark.slow
def test_an_interruption_ends_the_guests(kernel: Kernel) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "squall", "kernels", kernel.name], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(guests := children_of(process.pid)) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        handles = [os.pidfd_open(pid) for pid in guests]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "Traceback" in said) == (130, False), said
    for handle in handles:
        assert select.select([handle], [], [], 0)[0]
        os.close(handle)


def children_of(pid: int) -> set[int]:
    """The children of a process, all its threads' together."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for text in lists for child in text.split()}
