"""Processes as /proc shows them, and descriptors that are never a successor's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from squall.kernel import proc
from tests import specimens

if TYPE_CHECKING:
    from pathlib import Path

FAMILY = """
import subprocess, sys, time
if sys.argv[1] != "0":
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", open(sys.argv[2]).read(), str(int(sys.argv[1]) - 1), sys.argv[2]])
print("ready", flush=True)
time.sleep(600)
"""

FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_stat_line_is_read_whatever_the_command_is_called(tmp_path: Path) -> None:
    odd = tmp_path / ") Z (x 1"
    odd.symlink_to("/bin/sleep")
    with specimens.started(str(odd), "600") as specimen:
        specimens.wait_for(lambda: b"600" in (proc.PROC / f"{specimen.pid}/cmdline").read_bytes(), "it runs")
        specimens.wait_for(lambda: (now := proc.read_stat(specimen.pid)) and now.rss_pages, "its memory is counted")
        stat = proc.read_stat(specimen.pid)
    assert stat is not None
    assert (stat.comm, stat.ppid, stat.threads) == (") Z (x 1", os.getpid(), 1)
    assert stat.state in "SR"
    assert not stat.kernel_thread


def test_a_pid_that_nobody_has_is_none() -> None:
    with specimens.sleeper() as specimen:
        pid = specimen.pid
    assert proc.read_stat(pid) is None
    assert proc.command_line(pid) == []
    assert proc.executable(pid) == (0, 0)
    assert proc.environment_value(pid, "PATH") is None
    assert proc.socket_inodes(pid) == set()
    assert proc.process_of(pid) is None
    assert proc.nameless_bytes(pid) == 0


def test_a_zombie_is_gone() -> None:
    with specimens.sleeper() as specimen:
        start = specimen.identity.start_ticks
        os.kill(specimen.pid, signal.SIGKILL)
        specimens.wait_for(lambda: specimen.state == "Z", "it is a zombie")
        stat = proc.read_stat(specimen.pid)
        assert stat is not None
        assert stat.gone
        assert proc.open_process(specimen.pid, start) is None
        assert not proc.send_signal(specimen.pid, start, 0)


def test_a_process_whose_first_thread_has_ended_is_not_gone() -> None:
    """Its /proc/PID/stat says Z; it still runs, can be stopped and can be let go."""
    with specimens.python(FIRST_THREAD_ENDS) as specimen:
        specimens.wait_for(lambda: specimen.state == "Z", "its first thread has ended")
        stat = proc.read_stat(specimen.pid)
        assert stat is not None
        assert not stat.gone
        assert proc.send_signal(specimen.pid, stat.start_ticks, signal.SIGSTOP)
        specimens.wait_for(lambda: (now := proc.read_stat(specimen.pid)) is not None and now.stopped, "it is stopped")


def test_a_signal_reaches_only_the_process_with_that_start_time() -> None:
    with specimens.sleeper() as specimen:
        start = specimen.identity.start_ticks
        assert not proc.send_signal(specimen.pid, start + 1, signal.SIGKILL)
        assert proc.open_process(specimen.pid, start - 1) is None
        assert specimen.popen.poll() is None
        assert proc.send_signal(specimen.pid, start, signal.SIGTERM)
        assert specimen.popen.wait(5) == -signal.SIGTERM


def test_waiting_for_the_end_reaps_a_child_and_is_bounded() -> None:
    with specimens.sleeper() as specimen:
        start = specimen.identity.start_ticks
        assert not proc.wait_gone(specimen.pid, start, 0.05)
        os.kill(specimen.pid, signal.SIGKILL)
        assert proc.wait_gone(specimen.pid, start, 5)
        assert not (proc.PROC / str(specimen.pid)).exists()


def test_descendants_are_found_parents_first(tmp_path: Path) -> None:
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    with specimens.python(FAMILY, "3", str(script)) as root:
        specimens.wait_for(lambda: len(proc.descendants(root.pid)) == 3, "three generations are there")
        below = proc.descendants(root.pid)
        stats = [proc.read_stat(pid) for pid in below]
        assert [stat.ppid for stat in stats if stat] == [root.pid, *below[:-1]]
        assert proc.children_of(root.pid) == below[:1]
        assert proc.ancestors(below[-1])[:3] == [*reversed(below[:-1]), root.pid]
        assert proc.ancestors(below[-1])[-1] == 1 or os.getpid() in proc.ancestors(below[-1])
        for pid in below:
            os.kill(pid, signal.SIGKILL)


def test_a_variable_of_the_environment_is_read() -> None:
    with specimens.started("sleep", "600", env={"SQUALL_TEST": "a=b", "PATH": os.environ["PATH"]}) as specimen:
        specimens.wait_for(lambda: proc.environment_value(specimen.pid, "SQUALL_TEST") == "a=b", "it has the variable")
        assert proc.environment_value(specimen.pid, "SQUALL") is None


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_listens_on_a_port_is_found(family: int, host: str) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        port, inode = server.getsockname()[1], os.fstat(server.fileno()).st_ino
        assert inode in proc.socket_inodes(os.getpid())
        assert inode not in proc.listening_inodes(port)
        server.listen()
        assert inode in proc.listening_inodes(port)
        assert port in proc.listening_ports(os.getpid())


def test_a_thread_belongs_to_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        number = thread.native_id
        assert number is not None
        assert proc.process_of(number) == os.getpid()
        assert proc.process_of(os.getpid()) == os.getpid()
        stat = proc.read_stat(number)
        assert stat is not None
        assert proc.open_process(number, stat.start_ticks) is None
    finally:
        done.set()
        thread.join()


def test_nameless_files_are_counted(tmp_path: Path) -> None:
    before = proc.nameless_bytes(os.getpid())
    with (tmp_path / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 3 << 20)
        assert proc.nameless_bytes(os.getpid()) == before
        (tmp_path / "file").unlink()
        assert proc.nameless_bytes(os.getpid()) - before == pytest.approx(3 << 20, rel=0.1)


def test_pids_are_ascending_and_contain_this_process() -> None:
    pids = proc.pids()
    assert pids == sorted(pids)
    assert os.getpid() in pids


@specimens.needs_root
def test_a_reused_pid_is_another_process() -> None:
    """In a pid namespace of its own the kernel is told which pid to give next; the successor is left alone."""
    script = f"""
import sys; sys.path.insert(0, {str(specimens.SOURCE)!r})
import os, signal, subprocess, time
from squall.kernel import proc
from squall.targets.identity import ProcessIdentity

first = subprocess.Popen(["sleep", "600"])
identity = ProcessIdentity.of(first.pid)
first.kill(), first.wait()
deadline = time.monotonic() + 10
while True:
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(identity.pid - 1))
    second = subprocess.Popen(["sleep", "600"])
    same_tick = proc.read_stat(second.pid).start_ticks == identity.start_ticks
    if second.pid == identity.pid and not same_tick:
        break
    second.kill(), second.wait()
    assert time.monotonic() < deadline, "the kernel did not give the pid again"
print(identity.signal(signal.SIGKILL), identity.same_process(), ProcessIdentity.of(second.pid) == identity, second.poll())
second.kill(), second.wait()
"""
    argv = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-I", "-S", "-c", script]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if "unshare failed" in ran.stderr:
        pytest.skip(f"no pid namespace can be made here: {ran.stderr.strip()}")
    assert ran.stdout.split() == ["False", "False", "False", "None"], ran.stderr
