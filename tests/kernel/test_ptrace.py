"""A process is held, made to call the kernel, and goes on as if nothing had been."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path

import pytest

from squall.kernel import proc
from squall.kernel.ptrace import Tracee
from squall.kernel.syscall_sites import modules
from tests.file_programs import NORMAL, file_program
from tests.specimens import beater as started_beater
from tests.specimens import needs_root, sleeper, wait_for

pytestmark = [needs_root, pytest.mark.skipif(platform.machine() != "x86_64", reason="registers of x86-64")]
GETPID, GETPPID, BADF_CLOSE = 39, 110, 3


def a_syscall(pid: int) -> int:
    module = modules(pid)[0]
    return module.sites[0].address + module.bias


def test_nothing_runs_while_it_is_held_and_everything_after(tmp_path: Path) -> None:
    with started_beater(tmp_path) as beater:
        with Tracee(beater.pid, beater.identity.start_ticks) as held:
            assert held.threads == [beater.pid]
            assert not beater.moves(within_s=0.05)
        assert beater.moves()


def test_it_calls_the_kernel_in_the_processs_name(tmp_path: Path) -> None:
    with file_program("c", tmp_path) as program:
        instruction = a_syscall(program.pid)
        with Tracee(program.pid, program.identity.start_ticks) as held:
            before = bytes(held.registers(program.pid))
            assert held.call(instruction, GETPID) == program.pid
            assert held.call(instruction, GETPPID) == os.getpid()
            with pytest.raises(OSError, match="Bad file descriptor"):
                held.call(instruction, BADF_CLOSE, 9999)
            assert bytes(held.registers(program.pid)) == before
        assert program.errors() == NORMAL, "its read of standard input was started again"


def test_every_thread_of_a_go_program_is_held(tmp_path: Path) -> None:
    with file_program("go", tmp_path) as program:
        for _ in range(50):
            with Tracee(program.pid, program.identity.start_ticks) as held:
                assert sorted(held.threads) == sorted(
                    int(one.name) for one in Path(f"/proc/{program.pid}/task").iterdir()
                )
        assert program.errors() == NORMAL


def test_a_signal_that_arrives_meanwhile_is_delivered_afterwards() -> None:
    with sleeper() as specimen:
        instruction = a_syscall(specimen.pid)
        with Tracee(specimen.pid, specimen.identity.start_ticks) as held:
            specimen.popen.send_signal(signal.SIGTERM)
            assert held.call(instruction, GETPID) == specimen.pid
            assert specimen.state == "t"
        assert specimen.popen.wait(5) == -signal.SIGTERM


def test_a_stopped_process_stays_stopped() -> None:
    with sleeper() as specimen:
        specimen.popen.send_signal(signal.SIGSTOP)
        wait_for(lambda: specimen.state == "T", "it has stopped")
        with Tracee(specimen.pid, specimen.identity.start_ticks):
            pass
        wait_for(lambda: specimen.state == "T", "it has stopped again")


def test_one_that_is_gone_or_a_successor_is_not_held() -> None:
    with sleeper() as specimen:
        stat = proc.read_stat(specimen.pid)
        assert stat is not None
        with pytest.raises(ProcessLookupError), Tracee(specimen.pid, stat.start_ticks + 1):
            pass
    with pytest.raises(ProcessLookupError), Tracee(specimen.pid, stat.start_ticks):
        pass


def test_one_that_is_traced_already_is_refused() -> None:
    with sleeper() as specimen:
        held = Tracee(specimen.pid, specimen.identity.start_ticks)
        with held:
            script = (
                "from squall.kernel.ptrace import Tracee\n"
                "try:\n with Tracee(int(sys.argv[1]), int(sys.argv[2])): print('held')\n"
                "except PermissionError: print('refused')"
            )
            from tests.specimens import elsewhere

            said = elsewhere(script, str(specimen.pid), str(specimen.identity.start_ticks))
        assert said.stdout == "refused\n", said.stderr
