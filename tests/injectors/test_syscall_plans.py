"""Faults on system calls are planned in full or refused with the reason; planning touches nothing."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from squall.actions import SyscallPatch
from squall.faults import parse_fault
from squall.faults.syscall import Call
from squall.injectors import Plan, Refusal, Site
from squall.injectors.syscall_patch import FAMILIES, SyscallPatchInjector
from squall.kernel import proc, process_memory
from squall.kernel.syscall_numbers import NUMBERS
from squall.targets import ProcessIdentity, ProcessTarget, RouteTarget, find_cgroup
from tests.file_programs import FileProgram, file_program
from tests.specimens import needs_root, own_cgroup
from tests.steps import done

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64")
NUMBERS_OF = {**NUMBERS, "process_vm_readv": 310, "ptrace": 101, "clock_gettime": 228, "getpid": 39}
SITE = Site("some-run", Path("/nowhere"), "0-io.error", 7)
CONFINED = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
rows = [(0x20, 0, 0, 0)]  # the number of the call
for number in map(int, sys.argv[2:]):
    rows += [(0x15, 0, 1, number), (6, 0, 0, 0x80000000)]  # ends the process
rows += [(6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
print("ready", flush=True)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for line in sys.stdin:
    try:
        os.fsync(fd)
        print("ok", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


@contextmanager
def confined(path: Path, *forbidden: str) -> Iterator[FileProgram]:
    """A process with a seccomp filter that ends it for these calls; it syncs a file when it is asked to."""
    argv = [sys.executable, "-I", "-S", "-c", CONFINED, str(path), *(str(NUMBERS_OF[name]) for name in forbidden)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        started = FileProgram(process, path)
        assert started.answer() == "ready"
        yield started
        process.kill()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[FileProgram]:
    with file_program("c", tmp_path) as started:
        yield started


def plan(program: FileProgram, type_: str, **parameters: Any) -> Plan | Refusal:
    return SyscallPatchInjector().plan(parse_fault(type_, parameters), ProcessTarget(program.identity, "files"), SITE)


def rule_of(answer: Plan | Refusal) -> dict[str, Any]:
    assert isinstance(answer, Plan), answer
    (action,) = answer.actions
    assert isinstance(action, SyscallPatch)
    return action.rule


def test_every_call_that_can_be_named_has_a_number() -> None:
    assert set(Call.__args__) == set(NUMBERS)  # type: ignore[attr-defined]  # a Literal has them
    assert {name for names in FAMILIES.values() for name in names} <= set(NUMBERS)


def test_a_fault_becomes_a_rule(program: FileProgram) -> None:
    before = process_memory.mappings(program.pid)
    rule = rule_of(
        plan(program, "io.error", calls=["sync", "write"], errno="EIO", percent="25%", times=3, paths=["/a/*.log"])
    )
    assert set(rule["numbers"]) == {NUMBERS[name] for name in (*FAMILIES["sync"], *FAMILIES["write"])}
    assert rule["error"] == 5
    assert (rule["share"], rule["times"], rule["files"], rule["children"]) == (0.25, 3, True, False)
    assert rule["paths"] == ("/a/*.log",)
    delay = rule_of(plan(program, "syscall.delay", calls=["connect"], delay="2ms", jitter="1ms", descendants=True))
    assert (delay["numbers"], delay["delay_ns"], delay["jitter_ns"]) == ((NUMBERS["connect"],), 2_000_000, 1_000_000)
    assert (delay["files"], delay["children"], delay["error"]) == (False, True, 0)
    assert process_memory.mappings(program.pid) == before


def test_links_in_the_named_paths_are_followed(program: FileProgram, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    rule = rule_of(plan(program, "io.error", calls=["read"], errno="EIO", paths=[str(tmp_path / "link")]))
    assert rule["paths"] == (str(tmp_path / "link"), str(tmp_path / "folder"))


def test_what_it_says_of_itself(program: FileProgram) -> None:
    answer = plan(program, "io.delay", calls=["sync"], delay="5ms", percent="10%")
    assert isinstance(answer, Plan)
    assert answer.recoverability == "guarded"
    assert any("io_uring" in text for text in answer.not_covered)
    assert "delay 10% of sync by 5ms" in answer.actions[0].describe()


def test_other_targets_are_refused() -> None:
    fault = parse_fault("io.error", {"calls": ["read"], "errno": "EIO"})
    answer = SyscallPatchInjector().plan(fault, RouteTarget("127.0.0.1:1", "127.0.0.1:2"), SITE)
    assert isinstance(answer, Refusal)
    assert "patches processes, it does not work on a route" in answer.reason


@needs_root
def test_a_process_whose_filter_forbids_what_the_stub_calls_is_refused(tmp_path: Path) -> None:
    for name in ("process_vm_readv", "clock_gettime", "getpid"):
        with confined(tmp_path / "data", name) as program:
            answer = plan(program, "io.error", calls=["sync"], errno="EIO")
            assert isinstance(answer, Refusal)
            assert f"forbids process {program.pid} the call {name}" in answer.reason
            assert program.ask("sync") == "ok"


@needs_root
def test_a_process_whose_filter_lets_the_stub_work_is_hit(tmp_path: Path) -> None:
    with confined(tmp_path / "data", "ptrace") as program:
        answer = plan(program, "io.error", calls=["sync"], errno="EIO", paths=[str(tmp_path)])
        assert isinstance(answer, Plan), answer
        with done(answer.actions[0]):
            assert program.ask("sync") == "5"
        assert program.ask("sync") == "ok"


@needs_root
def test_the_processes_of_a_cgroup_are_hit_and_what_they_fork(program: FileProgram) -> None:
    with own_cgroup() as folder:
        fault = parse_fault("io.error", {"calls": ["sync"], "errno": "EIO"})
        empty = SyscallPatchInjector().plan(fault, find_cgroup(str(folder)), SITE)
        assert isinstance(empty, Refusal)
        assert "has 0" in empty.reason
        (folder / "cgroup.procs").write_text(str(program.pid))
        answer = SyscallPatchInjector().plan(fault, find_cgroup(str(folder)), SITE)
        rule_of(answer)
        assert isinstance(answer, Plan)
        with done(answer.actions[0]):
            assert program.round("child").sync == "EIO"
        assert program.round("child").sync == ""


@needs_root
def test_a_process_that_a_debugger_holds_is_refused(program: FileProgram) -> None:
    from squall.kernel.ptrace import Tracee

    with Tracee(program.pid, program.identity.start_ticks):
        answer = plan(program, "io.error", calls=["read"], errno="EIO")
    assert isinstance(answer, Refusal)
    assert "held by a debugger" in answer.reason


@needs_root
def test_a_process_in_a_time_namespace_of_its_own_is_refused() -> None:
    if not Path("/proc/self/ns/time").exists():
        pytest.skip("this kernel has no time namespaces (Linux 5.6)")
    script = "print('ready', flush=True); import sys; sys.stdin.read()"
    argv = [
        "unshare",
        "--time",
        "--boottime",
        "1000",
        "--monotonic",
        "1000",
        "--fork",
        sys.executable,
        "-I",
        "-S",
        "-c",
        script,
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        parent = FileProgram(process, Path("/nowhere"))
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            pytest.skip("no time namespace can be made here")
        (child,) = proc.children_of(parent.pid)
        target = ProcessTarget(ProcessIdentity.of(child), "python")
        answer = SyscallPatchInjector().plan(parse_fault("io.error", {"calls": ["read"], "errno": "EIO"}), target, SITE)
        assert isinstance(answer, Refusal)
        assert "time namespace" in answer.reason
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(
    ("type_", "parameters", "said"),
    [
        ("io.error", {"calls": ["sync"], "errno": "ENOSPACE"}, "did you mean 'ENOSPC'"),
        ("io.error", {"calls": ["sync"], "errno": "no"}, "spelt as in errno"),
        ("io.error", {"calls": [], "errno": "EIO"}, "at least 1 item"),
        ("io.error", {"calls": ["fsync"], "errno": "EIO"}, "'sync'"),
        ("io.error", {"calls": ["sync"], "errno": "EIO", "paths": ["data"]}, "match pattern"),
        ("io.corrupt", {}, "paths"),
        ("syscall.error", {"calls": ["sleep"], "errno": "EIO"}, "'nanosleep'"),
        ("syscall.delay", {"calls": ["read"], "delay": "1h"}, "1us to 10m is allowed"),
    ],
)
def test_wrong_parameters_are_refused_with_what_is_allowed(type_: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        parse_fault(type_, parameters)
