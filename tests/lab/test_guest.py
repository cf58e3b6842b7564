"""A command runs in another kernel, on this machine's files, and nothing of it stays here."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Timer
from typing import TYPE_CHECKING

import pytest

from squall.lab import boot
from squall.lab.ticks import kilohertz

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.lab import Kernel

pytestmark = pytest.mark.slow
BOOT_SECONDS_MAX = 120.0


def children(pid: int) -> set[int]:
    """The children of a process, all its threads' together."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for text in lists for child in text.split()}


def names(pids: set[int]) -> set[str]:
    return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of this test alone: it is empty again in the end."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def bash(script: str) -> list[str]:
    return ["/bin/bash", "-c", script]


def test_a_command_runs_in_another_kernel_on_this_machines_files(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("of the host\n")
    before = children(os.getpid())
    script = """
        uname -r; id -u; cat here; echo "$GREETING"; python=$1
        "$python" -c 'import sys; print(sys.version_info[:2])'
        echo for standard error >&2
        echo changed >here; echo new >there; cat here there
        echo handed back >/run/squall-lab/result
        exit 7
    """
    guest = boot(
        kernel, [*bash(script), "bash", sys.executable], BOOT_SECONDS_MAX, folder=str(tmp_path),
        environment={"GREETING": "it's $me"},
    )  # fmt: skip
    assert (guest.ended, guest.status) == ("exited", 7), guest.console
    assert guest.output.decode().splitlines() == [
        kernel.release, "0", "of the host", "it's $me", str(sys.version_info[:2]), "for standard error", "changed", "new",
    ]  # fmt: skip
    assert guest.result == b"handed back\n"
    assert guest.seconds_up is not None
    assert kernel.release != platform.release()
    assert (tmp_path / "here").read_text() == "of the host\n"
    assert not (tmp_path / "there").exists()
    assert children(os.getpid()) == before


def test_a_guests_clock_runs_as_the_hosts_does(kernel: Kernel) -> None:
    guest = boot(kernel, bash("cut -d' ' -f1 /proc/uptime; sleep 5; cut -d' ' -f1 /proc/uptime"), BOOT_SECONDS_MAX)
    first, last = map(float, guest.output.split())
    assert guest.seconds_up is not None
    assert 5 <= last - first < guest.seconds - guest.seconds_up + 1
    assert 2_000_000 < kilohertz() * 2 < 20_000_000


def test_the_hosts_files_cannot_be_written_even_by_the_guests_root(kernel: Kernel, tmp_path: Path) -> None:
    script = f"mkdir /run/again && mount -t virtiofs host /run/again && touch /run/again{tmp_path}/it"
    guest = boot(kernel, bash(script), BOOT_SECONDS_MAX)
    assert guest.status == 1
    assert b"Read-only file system" in guest.output
    assert list(tmp_path.iterdir()) == []


def test_modules_that_faults_need_are_there(kernel: Kernel) -> None:
    script = """
        set -e
        for folder in sch_netem sch_fq sch_tbf sch_htb sch_prio sch_ingress cls_bpf veth tun nf_tables; do
            [ -e /sys/module/$folder ] || grep -q "/$folder.ko" /lib/modules/$(uname -r)/modules.builtin || echo "no $folder"
        done
        [ -e /sys/fs/cgroup/cgroup.procs ]; [ -d /sys/kernel/debug/tracing ]; [ -e /sys/kernel/btf/vmlinux ]
        [ "$(cat /sys/class/net/lo/operstate)" = unknown ]
    """
    guest = boot(kernel, bash(script), BOOT_SECONDS_MAX)
    assert (guest.status, guest.output) == (0, b"")


def test_a_command_that_takes_too_long_is_ended(kernel: Kernel) -> None:
    before = children(os.getpid())
    guest = boot(kernel, bash("echo begun; sleep 600"), 25)
    assert (guest.ended, guest.status, guest.output) == ("not done in time", None, b"begun\n")
    assert guest.seconds < BOOT_SECONDS_MAX
    assert children(os.getpid()) == before


def test_a_guest_is_ended_on_request(kernel: Kernel) -> None:
    before, stop = children(os.getpid()), Event()
    timer = Timer(2, stop.set)
    timer.start()
    guest = boot(kernel, bash("sleep 600"), BOOT_SECONDS_MAX, stop=stop)
    timer.join()
    assert (guest.ended, guest.status) == ("ended on request", None)
    assert children(os.getpid()) == before


def test_a_kernel_that_panics_says_so(kernel: Kernel) -> None:
    guest = boot(kernel, bash("echo before; echo c >/proc/sysrq-trigger; sleep 60"), BOOT_SECONDS_MAX)
    assert (guest.ended, guest.status, guest.boots) == ("the guest died", None, 1)
    assert "Kernel panic" in guest.console


def test_a_guest_ends_with_the_process_that_booted_it(kernel: Kernel) -> None:
    code = """
import sys
from squall.lab import Kernel, boot
boot(Kernel.find(sys.argv[1]), ["/bin/sleep", "600"], 600)
"""
    booter = subprocess.Popen([sys.executable, "-c", code, kernel.name])
    try:
        deadline = time.monotonic() + 60
        while names(started := children(booter.pid)) < {"qemu-system-x86", "virtiofsd"}:
            assert booter.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        handles = [os.pidfd_open(pid) for pid in started]
    finally:
        booter.send_signal(signal.SIGKILL)
        booter.wait()
    for handle in handles:
        assert select.select([handle], [], [], 20)[0], "a guest's process outlived the one that booted it"
        os.close(handle)
