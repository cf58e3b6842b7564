"""The memory of another process is read and written, and no thread of it moves while it is held still."""

from __future__ import annotations

import mmap
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.errors import TargetError
from squall.kernel import proc, process_memory
from tests import specimens
from tests.clocks import needs_writable_code

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

HOLDS_A_PAGE = """
import ctypes, mmap, sys, time
page = mmap.mmap(-1, 4096)
page[:5] = b"first"
print("ready", flush=True)
print(ctypes.addressof(ctypes.c_char.from_buffer(page)), flush=True)
while page[:5] == b"first":
    time.sleep(0.002)
print(bytes(page[:6]).decode(), flush=True)
time.sleep(600)
"""

FOUR_THREADS = """
import threading, time
counts = [0] * 4
def count(n):
    while True:
        counts[n] += 1
        if n % 2:
            time.sleep(0.0005)
for n in range(4):
    threading.Thread(target=count, args=(n,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def busy() -> Iterator[specimens.Specimen]:
    """A process of five threads: two that never rest, two that often do, one that sleeps."""
    with specimens.python(FOUR_THREADS) as specimen:
        yield specimen


def cpu_time(pid: int) -> int:
    stat = proc.read_stat(pid)
    assert stat is not None
    return stat.utime + stat.stime


def test_what_is_written_is_what_the_process_sees() -> None:
    with specimens.python(HOLDS_A_PAGE) as specimen:
        assert specimen.popen.stdout is not None
        address = int(specimen.popen.stdout.readline())
        assert process_memory.read(specimen.pid, address, 7) == b"first\0\0"
        process_memory.write(specimen.pid, address, b"second")
        assert specimen.popen.stdout.readline() == b"second\n"


@needs_writable_code
def test_a_page_that_the_process_may_not_write_is_written_for_it_alone() -> None:
    """The program's own text is mapped from a file: neither the file nor another process of it changes."""
    with specimens.sleeper() as one, specimens.sleeper() as other:
        (text, *_) = [row for row in process_memory.mappings(one.pid) if "x" in row.permissions]
        address = text.start + 16
        before = process_memory.read(one.pid, address, 4)
        process_memory.write(one.pid, address, bytes(byte ^ 0xFF for byte in before))
        assert process_memory.read(one.pid, address, 4) != before
        (same, *_) = [row for row in process_memory.mappings(other.pid) if "x" in row.permissions]
        assert process_memory.read(other.pid, same.start + 16, 4) == before


def test_mappings_name_what_is_mapped() -> None:
    with specimens.sleeper() as specimen:
        rows = process_memory.mappings(specimen.pid)
        names = {row.name for row in rows}
        assert {"[stack]", "[vdso]"} <= names
        assert all(row.start < row.end and row.start % mmap.PAGESIZE == 0 for row in rows)
        program = next(row for row in rows if row.name.startswith("/"))
        assert Path(program.name).stat().st_ino == program.inode
    assert process_memory.mappings(specimen.pid) == []


def test_what_is_not_mapped_is_an_error_and_so_is_a_process_that_is_gone() -> None:
    with specimens.sleeper() as specimen:
        with pytest.raises(OSError, match=r"."):
            process_memory.read(specimen.pid, 0, 8)
        last = max(row.end for row in process_memory.mappings(specimen.pid) if row.name == "[stack]")
        with pytest.raises(OSError, match="only 4 of 8"):
            process_memory.read(specimen.pid, last - 4, 8)
    with pytest.raises(OSError, match=r"."):
        process_memory.read(specimen.pid, last - 8, 8)
    with pytest.raises(ProcessLookupError), process_memory.stopped(specimen.pid):
        pass


def test_nothing_moves_while_it_is_stopped(busy: specimens.Specimen) -> None:
    with process_memory.stopped(busy.pid) as threads:
        assert len(threads) == 5
        rows = process_memory.mappings(busy.pid)
        for thread in threads:
            assert any(row.start <= thread.pc < row.end and "x" in row.permissions for row in rows)
            assert any(row.start <= thread.sp < row.end and "w" in row.permissions for row in rows)
        before = cpu_time(busy.pid)
        then = proc.ticks_now() + 10
        specimens.wait_for(lambda: proc.ticks_now() > then, "a tenth of a second has passed")
        assert cpu_time(busy.pid) == before
    specimens.wait_for(lambda: busy.state in "RS" and cpu_time(busy.pid) > before, "it goes on")


def test_it_goes_on_whatever_happens_in_the_block(busy: specimens.Specimen) -> None:
    with pytest.raises(ZeroDivisionError), process_memory.stopped(busy.pid):
        raise ZeroDivisionError
    specimens.wait_for(lambda: busy.state in "RS", "it goes on")


def test_one_that_was_stopped_before_stays_so(busy: specimens.Specimen) -> None:
    os.kill(busy.pid, signal.SIGSTOP)
    specimens.wait_for(lambda: busy.state == "T", "it is stopped")
    with process_memory.stopped(busy.pid) as threads:
        assert len(threads) == 5
    assert busy.state == "T"


def test_a_successor_is_not_stopped(busy: specimens.Specimen) -> None:
    stat = proc.read_stat(busy.pid)
    assert stat is not None
    with pytest.raises(ProcessLookupError), process_memory.stopped(busy.pid, stat.start_ticks - 1):
        pass
    with process_memory.stopped(busy.pid, stat.start_ticks) as threads:
        assert threads


def test_a_process_that_a_debugger_holds_is_left_to_it(busy: specimens.Specimen) -> None:
    """`strace` and `gdb` are not needed: a child that traces it by ptrace(2) is a debugger."""
    script = """
import ctypes, sys, time
ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0)
print("ready", flush=True)
time.sleep(600)
"""
    with specimens.python(script, str(busy.pid)) as debugger:
        assert process_memory.tracer(busy.pid) == debugger.pid
        with pytest.raises(TargetError, match=f"debugger \\(pid {debugger.pid}\\)"), process_memory.stopped(busy.pid):
            pass
    assert process_memory.tracer(busy.pid) == 0


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root: run the tests with sudo")
def test_whoever_may_not_write_is_told() -> None:
    with specimens.sleeper() as specimen, specimens.unprivileged() as run:
        assert process_memory.memory_refusal(specimen.pid) is None
        done = run(f"from squall.kernel import process_memory; print(process_memory.memory_refusal({specimen.pid}))")
        assert "run as root" in done.stdout, done.stderr
