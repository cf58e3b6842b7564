"""Programs in the kernel make files and sockets fail for those who were chosen, and end with their worker."""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from squall.faults import parse_fault
from squall.injectors import Plan, Refusal, Site
from squall.injectors.lsm import SecurityHookInjector
from squall.injectors.socket_errno import SocketErrnoInjector
from squall.kernel.bpf import loads
from squall.targets import ProcessTarget, find_cgroup
from tests.file_programs import NORMAL, FileProgram, file_program
from tests.specimens import needs_root, own_cgroup, wait_for
from tests.steps import done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.actions import Action
    from squall.faults import Fault
    from squall.targets import Target

pytestmark = needs_root

CONNECTS = """
import socket, sys
print("ready", flush=True)
for line in sys.stdin:
    family, host, port = line.split()
    try:
        with socket.socket(getattr(socket, family)) as client:
            client.connect((host, int(port)))
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def needs(name: str, *programs: str) -> None:
    answer = loads(name, programs or None)
    if not answer.works:
        pytest.skip(f"this kernel does not take {name}: {answer.reason[:120]}")


@contextmanager
def hitting(
    injector: SecurityHookInjector | SocketErrnoInjector, fault: Fault, target: Target, token: str
) -> Iterator[Action]:
    """The fault made real by this mechanism; undone and looked at on the way out."""
    run, _, id_ = token.partition("/")
    plan = injector.plan(fault, target, Site(run, Path("/nowhere"), id_, 7))
    assert isinstance(plan, Plan), plan
    assert plan.recoverability == "lease"
    with ExitStack() as stack:
        for action in plan.actions:
            prepared, _ = stack.enter_context(done(action))
        yield prepared


@pytest.fixture
def program(tmp_path: Path) -> Iterator[FileProgram]:
    with file_program("c", tmp_path) as started:
        yield started


def target_of(program: FileProgram) -> ProcessTarget:
    return ProcessTarget(program.identity, "files")


# ---- files, at the security checks


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("calls", "name", "expected"),
    [
        (["open"], "EMFILE", ("EMFILE", "", "", "")),
        (["write"], "ENOSPC", ("", "ENOSPC", "", "")),
        (["read"], "EIO", ("", "", "", "EIO")),
        (["read", "write"], "EROFS", ("", "EROFS", "", "EROFS")),
    ],
)
def test_a_process_gets_the_error_and_others_do_not(
    program: FileProgram, token: str, tmp_path: Path, calls: list[str], name: str, expected: tuple[str, ...]
) -> None:
    needs("io", "process_opens", "process_uses")
    (tmp_path / "other").mkdir()
    fault = parse_fault("io.error", {"calls": calls, "errno": name, "paths": [str(tmp_path)]})
    with file_program("c", tmp_path / "other") as other:
        with hitting(SecurityHookInjector(), fault, target_of(program), token) as action:
            assert program.errors() == expected
            assert other.errors() == NORMAL
            wait_for(lambda: action.counters()["hits"] >= 1, "the counts are published")  # type: ignore[attr-defined]
        assert program.errors() == NORMAL


def test_only_the_named_paths_are_hit(program: FileProgram, token: str, tmp_path: Path) -> None:
    needs("io", "process_opens")
    for number, (path, hit) in enumerate(
        ((program.path, True), (tmp_path, True), (Path("/"), True), (tmp_path / "data", False), (Path("/proc"), False))
    ):
        fault = parse_fault("io.error", {"calls": ["open"], "errno": "EIO", "paths": ["/nowhere", str(path)]})
        with hitting(SecurityHookInjector(), fault, target_of(program), f"{token}{number}"):
            assert program.errors() == (("EIO", "", "", "") if hit else NORMAL), path


def test_the_share_is_what_was_asked_for(program: FileProgram, token: str) -> None:
    needs("io", "process_uses")
    fault = parse_fault(
        "io.error", {"calls": ["write"], "errno": "EIO", "percent": "30%", "paths": [str(program.path)]}
    )
    count, share = 400, 0.3
    with hitting(SecurityHookInjector(), fault, target_of(program), token):
        failed = sum(program.round().write == "EIO" for _ in range(count))
    assert abs(failed - count * share) < 5 * math.sqrt(count * share * (1 - share))


@pytest.mark.kernel
def test_a_cgroup_is_hit_and_what_is_beside_it_is_not(program: FileProgram, token: str, tmp_path: Path) -> None:
    needs("io", "cgroup_opens")
    with own_cgroup() as folder:
        fault = parse_fault("io.error", {"calls": ["open"], "errno": "EACCES", "paths": [str(tmp_path)]})
        with hitting(SecurityHookInjector(), fault, find_cgroup(str(folder)), token):
            assert program.errors() == NORMAL
            (folder / "cgroup.procs").write_text(str(program.pid))
            assert program.errors() == ("EACCES", "", "", "")
        assert program.errors() == NORMAL


def test_children_are_hit_only_where_it_was_asked_for(program: FileProgram, token: str) -> None:
    needs("io", "process_opens")
    child = int(program.ask("leave"))
    try:
        for number, (descendants, expected) in enumerate(((False, ""), (True, "EIO"))):
            fault = parse_fault(
                "io.error",
                {"calls": ["open"], "errno": "EIO", "paths": [str(program.path)], "descendants": descendants},
            )
            with hitting(SecurityHookInjector(), fault, target_of(program), f"{token}{number}"):
                os.kill(child, signal.SIGUSR1)
                assert program.read_round(program.answer()).open == expected
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_kernel_lets_everything_pass_when_the_worker_is_killed(program: FileProgram, token: str) -> None:
    needs("io", "process_opens")
    fault = parse_fault("io.error", {"calls": ["open"], "errno": "EIO", "paths": [str(program.path)]})
    with hitting(SecurityHookInjector(), fault, target_of(program), token) as action:
        assert program.errors() == ("EIO", "", "", "")
        (worker,) = surviving(action.token)  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: program.errors() == NORMAL, "everything passes", seconds=1)


def test_what_it_cannot_honour_it_refuses(program: FileProgram) -> None:
    site = Site("run", Path("/nowhere"), "0", 7)
    for parameters, reason in (
        ({"calls": ["sync"], "errno": "EIO"}, "asks no security module about sync"),
        ({"calls": ["open"], "errno": "EIO", "paths": ["/a*"]}, "not patterns"),
        ({"calls": ["open"], "errno": "EIO", "paths": [f"/{number}" for number in range(5)]}, "4 paths"),
    ):
        answer = SecurityHookInjector().plan(parse_fault("io.error", parameters), target_of(program), site)
        assert isinstance(answer, Refusal)
        assert reason in answer.reason
    delay = parse_fault("io.delay", {"calls": ["open"], "delay": "1ms"})
    answer = SecurityHookInjector().plan(delay, target_of(program), site)
    assert isinstance(answer, Refusal)
    assert "may not sleep" in answer.reason


# ---- sockets, at a cgroup's hooks


@pytest.fixture
def folder() -> Iterator[Path]:
    needs("socket_errno")
    with own_cgroup() as made:
        yield made


@contextmanager
def connecting() -> Iterator[FileProgram]:
    """A process that connects where it is told."""
    argv = [sys.executable, "-I", "-S", "-u", "-c", CONNECTS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        started = FileProgram(process, Path("/nowhere"))
        assert started.answer() == "ready"
        yield started
        process.kill()


@pytest.mark.kernel
@pytest.mark.parametrize("family", ["AF_INET 127.0.0.1", "AF_INET6 ::1"])
def test_connects_of_a_cgroup_get_the_error(folder: Path, token: str, family: str) -> None:
    fault = parse_fault("syscall.error", {"calls": ["connect"], "errno": "EHOSTUNREACH"})
    with connecting() as inside, connecting() as outside:
        (folder / "cgroup.procs").write_text(str(inside.pid))
        before = inside.ask(f"{family} 1")
        assert before == str(errno.ECONNREFUSED)
        with hitting(SocketErrnoInjector(), fault, find_cgroup(str(folder)), token) as action:
            assert inside.ask(f"{family} 1") == str(errno.EHOSTUNREACH)
            assert outside.ask(f"{family} 1") == before
            wait_for(lambda: action.counters()["hits"] == 1, "the counts are published")  # type: ignore[attr-defined]
        assert inside.ask(f"{family} 1") == before


def test_it_can_be_changed_without_a_gap_and_ends_with_its_worker(folder: Path, token: str) -> None:
    target = find_cgroup(str(folder))
    first = parse_fault("syscall.error", {"calls": ["connect"], "errno": "EHOSTUNREACH"})
    then = parse_fault("syscall.error", {"calls": ["socket"], "errno": "EMFILE"})
    site = Site(token.partition("/")[0], Path("/nowhere"), token.partition("/")[2], 7)
    plans = [SocketErrnoInjector().plan(fault, target, site) for fault in (first, then)]
    assert all(isinstance(plan, Plan) for plan in plans)
    (one,), (other,) = (plan.actions for plan in plans if isinstance(plan, Plan))
    with connecting() as inside, done(one) as (action, held):
        (folder / "cgroup.procs").write_text(str(inside.pid))
        assert inside.ask("AF_INET 127.0.0.1 1") == str(errno.EHOSTUNREACH)
        assert action.become(other, held)  # type: ignore[attr-defined]
        wait_for(lambda: inside.ask("AF_INET 127.0.0.1 1") == str(errno.EMFILE), "the new error is there")
        (worker,) = surviving(action.token)  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: inside.ask("AF_INET 127.0.0.1 1") == str(errno.ECONNREFUSED), "all passes", seconds=1)


def test_curl_in_the_cgroup_is_refused(folder: Path, token: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl: apt-get install curl")
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"}, cwd="/proc/self/fdinfo",
    ) as server:  # fmt: skip
        assert server.stdout is not None
        port = server.stdout.readline().split(b" port ")[1].split()[0].decode()
        command = f"echo $$ > {folder}/cgroup.procs && exec {curl} -s -o /dev/null http://127.0.0.1:{port}/"
        fault = parse_fault("syscall.error", {"calls": ["connect"], "errno": "ECONNREFUSED"})
        with hitting(SocketErrnoInjector(), fault, find_cgroup(str(folder)), token):
            assert subprocess.run(["sh", "-c", command], check=False).returncode == 7, "curl: failed to connect"
        assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
        server.kill()


def test_other_calls_and_targets_are_refused(folder: Path, program: FileProgram) -> None:
    site = Site("run", Path("/nowhere"), "0", 7)
    fault = parse_fault("syscall.error", {"calls": ["connect", "read"], "errno": "EIO"})
    answer = SocketErrnoInjector().plan(fault, find_cgroup(str(folder)), site)
    assert isinstance(answer, Refusal)
    assert "not for read" in answer.reason
    answer = SocketErrnoInjector().plan(fault, target_of(program), site)
    assert isinstance(answer, Refusal)
