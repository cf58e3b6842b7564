"""System calls of running processes fail or wait as asked, in every language, and are as before afterwards."""

from __future__ import annotations

import errno
import math
import os
import platform
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from squall.actions import SyscallPatch, decode, encode
from squall.actions.worker import surviving
from squall.errors import ActionFailed, TargetError
from squall.kernel import process_memory, syscall_patch, syscall_stub
from squall.kernel.syscall_numbers import NUMBERS
from squall.kernel.syscall_stub import Rule
from tests import specimens
from tests.file_programs import NORMAL, FileProgram, Language, file_program
from tests.specimens import needs_root, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from squall.actions import Action

    Doing = Callable[[Action], AbstractContextManager[tuple[SyscallPatch, tuple[int, ...]]]]

pytestmark = [
    needs_root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64"),
]
ALL = tuple(NUMBERS[name] for name in ("open", "openat", "write", "pwrite64", "fsync", "read", "pread64"))
SYNC, WRITE, READ, OPEN = (
    (NUMBERS["fsync"],), (NUMBERS["pwrite64"],), (NUMBERS["pread64"],), (NUMBERS["open"], NUMBERS["openat"])
)  # fmt: skip
LANGUAGES: tuple[Language, ...] = ("go", "go-stripped", "c", "c-static", "python")


@pytest.fixture(params=LANGUAGES)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileProgram]:
    """The program in each language."""
    with file_program(request.param, tmp_path) as started:
        yield started


@pytest.fixture
def c_program(tmp_path: Path) -> Iterator[FileProgram]:
    """The program in C."""
    with file_program("c", tmp_path) as started:
        yield started


def patch(program: FileProgram, token: str, numbers: tuple[int, ...], **rule: object) -> SyscallPatch:
    what = Rule(numbers, files=True, **rule)  # type: ignore[arg-type]  # as the caller says
    return SyscallPatch(token, program.identity, "files", asdict(what), 7, "test")


def become(action: SyscallPatch, held: tuple[int, ...], numbers: tuple[int, ...], **rule: object) -> SyscallPatch:
    """The step after its adjustment, once the worker has taken it."""
    what = Rule(numbers, files=True, **rule)  # type: ignore[arg-type]
    new = action.adjusted(replace(action, rule=asdict(what), regions=(), patches=()))
    generation = generation_of(action)
    assert action.become(new, held)
    wait_for(lambda: generation_of(action) != generation, "the new rule is there")
    assert isinstance(new, SyscallPatch)
    return new


def generation_of(action: SyscallPatch) -> bytes:
    return process_memory.read(action.process.pid, action.regions[-1][0] + 0x10000 + 24, 8)


def test_each_call_fails_as_asked_and_only_that_one(program: FileProgram, token: str, doing: Doing) -> None:
    assert program.errors() == NORMAL
    with doing(patch(program, token, ALL)) as (action, held):
        assert program.errors() == NORMAL, "a rule without an error or a delay changes nothing"
        become(action, held, SYNC, error=errno.EIO)
        assert program.errors() == ("", "", "EIO", "")
        become(action, held, WRITE, error=errno.ENOSPC)
        assert program.errors() == ("", "ENOSPC", "", "")
        become(action, held, READ, error=errno.EIO)
        assert program.errors() == ("", "", "", "EIO")
        become(action, held, OPEN, error=errno.EMFILE)
        assert program.errors() == ("EMFILE", "", "", "")
        assert not action.verify().normal
        assert action.in_force()
    assert program.errors() == NORMAL


def test_a_delay_is_never_early_and_only_where_it_was_asked_for(program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(program, token, SYNC, delay_ns=30_000_000)):
        assert 30_000 <= min(program.round().took_us for _ in range(5)) < 60_000
    assert program.round().took_us < 30_000


@pytest.mark.slow
def test_the_share_is_what_was_asked_for_and_the_same_for_the_same_seed(
    program: FileProgram, token: str, doing: Doing
) -> None:
    count, share = 1000, 0.3
    failed = []
    for number in range(2):
        with doing(patch(program, f"{token}{number}", SYNC, error=errno.EIO, share=share)) as (action, _):
            failed.append(int(program.ask(f"many {count}")))
            wait_for(lambda: action.counters()["calls"] == count, "the counts are published")
            assert action.counters() == {"calls": count, "hits": failed[-1]}
    assert failed[0] == failed[1]
    assert abs(failed[0] - count * share) < 5 * math.sqrt(count * share * (1 - share))


def test_it_ends_after_so_many_hits(program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(program, token, SYNC, error=errno.EIO, times=3)):
        assert program.ask("many 100") == "3"


def test_only_the_named_paths_are_hit(program: FileProgram, token: str, doing: Doing) -> None:
    folder = program.path.parent
    with doing(patch(program, token, ALL)) as (action, held):
        for wanted, hit in (
            (str(program.path), True), (str(folder), True), (f"{folder}/*.txt", True), ("/", True), ("/*ta.txt", True),
            (f"{program.path}x", False), (str(program.path)[:-1], False), (f"{folder}/*.log", False), ("/proc", False),
        ):  # fmt: skip
            become(action, held, SYNC, error=errno.EIO, paths=(wanted,))
            assert program.errors() == (("", "", "EIO", "") if hit else NORMAL), wanted
            become(action, held, OPEN, error=errno.EACCES, paths=("/nowhere", wanted))
            assert program.errors() == (("EACCES", "", "", "") if hit else NORMAL), wanted


def test_writes_that_fail_write_nothing_and_the_others_everything(
    program: FileProgram, token: str, doing: Doing
) -> None:
    count = 500
    with doing(patch(program, token, WRITE, error=errno.ENOSPC, share=0.3)) as (action, _):
        assert program.ask(f"store {count}") == "stored"
        wait_for(lambda: action.counters()["hits"] > count, "the counts are published")
    whole = "".join(f"{number:08}\n" for number in range(count))
    for worker in range(4):
        assert (program.path.parent / f"data.txt.{worker}").read_text() == whole


READER = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    with open(sys.argv[1], "rb", buffering=0) as file:
        print(file.read(4096).hex(), flush=True)
"""


def test_what_is_read_is_wrong_in_one_bit_and_the_file_stays_right(token: str, doing: Doing, tmp_path: Path) -> None:
    file = tmp_path / "zeros.bin"
    file.write_bytes(bytes(4096))
    argv = [sys.executable, "-I", "-S", "-u", "-c", READER, str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        program = FileProgram(process, file)
        assert program.answer() == "ready"
        with doing(patch(program, token, (NUMBERS["read"],), spoil=True, paths=(str(file),))):
            wrong = [sum(byte.bit_count() for byte in bytes.fromhex(program.ask("read"))) for _ in range(5)]
        assert wrong == [1] * 5
        assert not any(bytes.fromhex(program.ask("read")))
        process.kill()
    assert not any(file.read_bytes())


def test_others_that_run_the_same_program_are_not_hit(token: str, doing: Doing, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        file_program("c", tmp_path / "one") as one,
        file_program("c", tmp_path / "other") as other,
        doing(patch(one, token, SYNC, error=errno.EIO)),
    ):
        assert one.errors() == ("", "", "EIO", "")
        assert other.errors() == NORMAL


@pytest.mark.kernel
def test_a_forked_child_is_hit_only_where_it_was_asked_for(c_program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(c_program, token, SYNC, error=errno.EIO)) as (action, held):
        assert c_program.round("child").sync == ""
        assert c_program.round().sync == "EIO"
        become(action, held, SYNC, error=errno.EIO, children=True)
        assert c_program.round("child").sync == "EIO"
    assert c_program.round("child").sync == ""


def test_children_that_outlive_their_parent_are_found_and_undone(
    c_program: FileProgram, token: str, doing: Doing
) -> None:
    with doing(patch(c_program, token, SYNC, error=errno.EIO, children=True)) as (action, _):
        child = int(c_program.ask("leave"))
        os.kill(child, signal.SIGUSR1)
        assert c_program.read_round(c_program.answer()).sync == "EIO"
        os.kill(c_program.pid, signal.SIGKILL)
        wait_for(lambda: c_program.state == "Z", "the parent has ended")
        assert not action.verify().normal
    try:
        os.kill(child, signal.SIGUSR1)
        assert c_program.read_round(c_program.answer()).sync == ""
    finally:
        os.kill(child, signal.SIGKILL)


def test_calls_pass_within_a_second_of_the_workers_death_and_undo_restores_the_code(
    c_program: FileProgram, token: str
) -> None:
    action = patch(c_program, token, SYNC, error=errno.EIO).prepare()
    (life_line,) = action.do()
    try:
        assert c_program.errors() == ("", "", "EIO", "")
        (worker,) = surviving(token)
        os.kill(worker.pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: c_program.errors() == NORMAL, "the lease has ended", seconds=5)
        assert time.monotonic() - killed < 1.5
        assert not action.in_force()
        assert not action.verify().normal, "the code is still patched"
    finally:
        os.close(life_line)
        action.undo()
    assert action.verify().normal
    assert c_program.errors() == NORMAL


def test_the_worker_itself_takes_everything_out_when_its_owner_is_gone(c_program: FileProgram, token: str) -> None:
    action = patch(c_program, token, SYNC, error=errno.EIO).prepare()
    (life_line,) = action.do()
    os.close(life_line)
    wait_for(lambda: action.verify().normal, "the worker has ended and undone", seconds=5)
    assert c_program.errors() == NORMAL
    action.undo()


def test_a_call_that_waits_is_let_go_when_the_fault_ends(c_program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(c_program, token, SYNC, delay_ns=60_000_000_000)) as (action, _):
        c_program.tell("round")
        wait_for(lambda: action.counters()["hits"] == 1, "it waits")
    assert c_program.read_round(c_program.answer()).took_us < 20_000_000


def test_signals_are_handled_while_a_call_waits(c_program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(c_program, token, SYNC, delay_ns=200_000_000)):
        failed, took_us, alarms = (int(word) for word in c_program.ask("signals").split())
    assert failed == 0
    assert took_us >= 200_000
    assert alarms > 50


def test_an_exec_ends_it_and_the_run_can_tell(c_program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(c_program, token, SYNC, error=errno.EIO)) as (action, _):
        assert c_program.ask("exec") == "ready"
        assert c_program.errors() == NORMAL
        wait_for(lambda: not action.in_force(), "it is known to have lapsed")


def test_undo_is_idempotent_and_harmless_before_do(c_program: FileProgram, token: str) -> None:
    bare = patch(c_program, token, SYNC, error=errno.EIO)
    bare.undo()
    assert bare.verify().normal
    prepared = bare.prepare()
    prepared.undo()
    assert prepared.verify().normal
    os.close(*prepared.do())
    prepared.undo()
    prepared.undo()
    assert c_program.errors() == NORMAL
    assert decode(encode(prepared)) == prepared, "the journal holds all of it"


def test_code_that_somebody_else_has_changed_since_is_left_alone(c_program: FileProgram, token: str) -> None:
    action = patch(c_program, token, SYNC, error=errno.EIO).prepare()
    first = syscall_patch.Patch(*action.patches[0])
    before = process_memory.read(c_program.pid, first.address, 1)
    process_memory.write(c_program.pid, first.address, b"\x90")
    with pytest.raises(ActionFailed, match="has changed since it was read"):
        action.do()
    process_memory.write(c_program.pid, first.address, before)
    (life_line,) = action.do()
    other = syscall_patch.Patch(*action.patches[-1])
    process_memory.write(c_program.pid, other.address, b"\xeb\xfe")
    os.close(life_line)
    action.undo()
    assert process_memory.read(c_program.pid, other.address, 2) == b"\xeb\xfe"
    assert process_memory.read(c_program.pid, first.address, 1) == before
    assert action.verify().normal


def test_the_same_memory_serves_the_next_fault(c_program: FileProgram, token: str, doing: Doing) -> None:
    with doing(patch(c_program, f"{token}a", SYNC, error=errno.EIO)) as (first, _):
        pass
    mapped = len(process_memory.mappings(c_program.pid))
    with doing(patch(c_program, f"{token}b", SYNC, error=errno.EIO)) as (second, _):
        assert [base for base, _ in second.regions] == [base for base, _ in first.regions]
        assert not any(new for _, new in second.regions)
        assert c_program.errors() == ("", "", "EIO", "")
    assert len(process_memory.mappings(c_program.pid)) == mapped


def test_a_successor_is_left_alone(c_program: FileProgram, token: str) -> None:
    action = patch(c_program, token, SYNC, error=errno.EIO).prepare()
    successor = replace(action, process=replace(action.process, start_ticks=action.process.start_ticks - 100))
    with pytest.raises(TargetError, match="has ended, or become another program"):
        successor.prepare()
    with pytest.raises(ActionFailed, match="has ended"):
        successor.do()
    assert c_program.errors() == NORMAL


def test_a_process_that_makes_no_such_call_is_refused(token: str) -> None:
    with specimens.sleeper() as specimen:
        action = SyscallPatch(token, specimen.identity, "sleep", asdict(Rule((1023,))), 1, "test")
        prepared = action.prepare()
        assert prepared.patches, "libc's syscall(2) may make any call"


CYCLES = 200


@pytest.mark.slow
@pytest.mark.parametrize("language", ["go", "c", "python"])
def test_it_can_come_and_go_under_load_without_a_trace(language: Language, tmp_path: Path) -> None:
    count, stop = 5_000, threading.Event()
    with file_program(language, tmp_path) as program, ThreadPoolExecutor(1) as pool:

        def load() -> int:
            rounds = 0
            while not stop.is_set():
                assert program.ask(f"store {count}") == "stored"
                rounds += 1
            return rounds

        rounds = pool.submit(load)
        ticks, hits = program.identity.start_ticks, 0
        try:
            for cycle in range(CYCLES):
                rule = (
                    Rule(WRITE, error=errno.ENOSPC, share=0.2) if cycle % 2 else Rule(WRITE, delay_ns=20_000, share=0.1)
                )
                layout = syscall_patch.lay_out(program.pid, WRITE)
                base = layout.regions[0].base
                syscall_patch.install(program.pid, ticks, layout, partial(running, rule, program.pid))
                counts = wait_for_counts(program.pid, base)
                syscall_patch.remove_everywhere(program.pid, ticks, layout)
                assert not syscall_patch.patched(program.pid, layout.patches)
                hits += counts.hits
        finally:
            stop.set()
        assert rounds.result() > 0
        assert hits > CYCLES
        assert program.errors() == NORMAL
    whole = "".join(f"{number:08}\n" for number in range(count))
    assert all((tmp_path / f"data.txt.{worker}").read_text() == whole for worker in range(4))


def running(rule: Rule, pid: int) -> bytes:
    """A control block whose lease lasts longer than the test."""
    until = time.monotonic_ns() + 600_000_000_000
    return struct.pack("<Q", until) + syscall_stub.control_block(rule, pid, 1)[8:]


def wait_for_counts(pid: int, base: int) -> syscall_stub.Counts:
    """The counts of a stub once it has hit several calls."""

    def counts() -> syscall_stub.Counts:
        return syscall_stub.Counts.read(process_memory.read(pid, base + syscall_stub.CONTROL, 80))

    wait_for(lambda: counts().hits > 2, "it hits")
    return counts()
