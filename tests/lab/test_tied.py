"""A tied process ends with the one that started it; a shielded one cannot write."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from squall.kernel import launch

if TYPE_CHECKING:
    from pathlib import Path


def tied(parent: int, *command: str) -> list[str]:
    return launch.command("squall.lab.tied", str(parent), *command)


def test_it_becomes_the_program() -> None:
    done = subprocess.run(tied(os.getpid(), "/bin/echo", "a b"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a b\n")


def test_it_ends_with_its_parent() -> None:
    code = f"""
import os, subprocess, time
command = {tied(0, "/bin/sleep", "600")!r}
command[command.index("squall.lab.tied") + 1] = str(os.getpid())
print(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


def test_it_does_not_begin_when_its_parent_is_another() -> None:
    done = subprocess.run(tied(1 << 22, "/bin/echo"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (127, "")
    assert "the process that asked for it is gone" in done.stderr


def test_a_program_that_is_not_there_is_named() -> None:
    done = subprocess.run(tied(os.getpid(), "/no/such"), capture_output=True, text=True, check=False)
    assert (done.returncode, "/no/such: " in done.stderr) == (127, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace of one's own needs root")
def test_read_only_is_for_the_program_alone(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", f"touch {tmp_path}/it || exit 9"]
    done = subprocess.run(tied(os.getpid(), "--read-only", *command), capture_output=True, text=True, check=False)
    assert (done.returncode, "Read-only file system" in done.stderr) == (9, True)
    (tmp_path / "here").write_text("the machine's own mounts are as before")
