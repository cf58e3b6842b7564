"""Every command: what it prints, what it exits with, that wrong input is told and touches nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall.cli.app import COMMANDS
from squall.faults import fault_types
from squall.kernel import proc
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def target() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(0.01)"])
    yield process
    process.kill()
    process.wait()


def wait_for(condition: Callable[[], bool], within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state_of(pid: int) -> str:
    stat = proc.read_stat(pid)
    return stat.state if stat is not None else ""


QUICK = ("--baseline", "300ms", "--within", "1s")


def test_help_lists_every_command(squall: Any) -> None:
    done = squall("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(squall: Any, name: str) -> None:
    done = squall(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: squall")


def test_version(squall: Any) -> None:
    assert squall("--version").stdout.startswith("squall 0.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["injekt"], "Did you mean 'inject'?"),
        (["inject", "tcp.latenzy"], "did you mean tcp.latency?"),
        (["inject", "process.pause"], "--target"),
        (["inject", "process.pause", "-t", "pid:x", "-d", "1s"], "pid:4711"),
        (["inject", "process.pause", "-t", "pid:4711", "-d", "3 sec"], "not a duration"),
        (["inject", "process.pause", "-t", "pid:4711", "-d", "1s", "--mode", "most"], "mode"),
        (["inject", "process.pause", "-t", "route:127.0.0.1:1->127.0.0.1:2", "-d", "1s"], "happens to a process"),
        (["faults", "tcp.latenzy"], "did you mean tcp.latency?"),
        (["report", "no-such-run"], "there is no run"),
        (["status", "no-such-run"], "there is no run"),
        (["run", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (["standin", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (["recover", "--forget"], "--forget needs the run"),
    ],
)
def test_wrong_input_is_told_and_exits_with_2(squall: Any, words: list[str], said: str) -> None:
    done = squall(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (squall.state / "runs").exists() or not list((squall.state / "runs").iterdir())


@specimens.needs_root
def test_a_group_with_nobody_in_it_is_not_faulted_unwatched(squall: Any) -> None:
    with specimens.own_cgroup() as folder:
        done = squall("inject", "stress.cpu", "-t", f"cgroup:{folder}", "-d", "1s")
    assert done.returncode == 4, done.stderr
    assert "there is no process in" in done.stderr
    assert not (squall.state / "runs").exists() or not list((squall.state / "runs").iterdir())


def test_faults_and_schema(squall: Any) -> None:
    listed = json.loads(squall("faults", "--json").stdout)
    assert [row["type"] for row in listed] == fault_types()
    one = squall("faults", "tcp.latency")
    assert "jitter" in one.stdout
    assert json.loads(squall("schema").stdout)["$schema"].startswith("https://json-schema.org/")


def test_doctor_names_a_mechanism_for_every_fault(squall: Any) -> None:
    rows = json.loads(squall("doctor", "--json").stdout)["faults"]
    assert {row["fault"] for row in rows} == set(fault_types())
    assert all(row["mechanism"] and row["recoverability"] for row in rows)
    assert "process.pause" in squall("doctor").stdout


@pytest.mark.slow
def test_inject_pauses_undoes_and_reports(squall: Any, target: Any) -> None:
    done = squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "500ms", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "process.pause is ON" in done.stderr
    assert "is off, verified" in done.stderr
    assert state_of(target.pid) in "SR"
    [run] = (squall.state / "runs").iterdir()
    assert (run / "report.html").stat().st_size > 10_000
    listed = json.loads(squall("list", "--json").stdout)
    assert [(row["run"], row["state"], row["exit_status"]) for row in listed] == [(run.name, "passed", 0)]
    assert run.name in squall("list").stdout
    assert squall("report", "last", "--format", "junit", "--format", "markdown", "--format", "json").returncode == 0
    assert {path.name for path in run.glob("report.*")} == {
        "report.html",
        "report.junit.xml",
        "report.md",
        "report.json",
    }
    assert squall("compare", "last", run.name).returncode == 0
    assert squall("status", run.name).returncode == 2, "it is over"


@pytest.mark.slow
def test_json_is_one_document_on_stdout(squall: Any, target: Any) -> None:
    done = squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "300ms", *QUICK, "--json")
    data = json.loads(done.stdout)
    assert data["exit_status"] == 0


def test_dry_run_prints_the_plan_and_touches_nothing(squall: Any, target: Any) -> None:
    done = squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "1s", "--dry-run")
    assert done.returncode == 0
    assert f"kill -CONT {target.pid}" in done.stdout
    assert "Nothing was touched." in done.stdout
    assert not squall.state.exists()
    data = json.loads(
        squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "1s", "--dry-run", "--json").stdout
    )
    assert data["faults"][0]["targets"][0]["mechanism"] == "sigstop"


def test_a_protected_or_missing_target_exits_with_4(squall: Any) -> None:
    for target, said in (
        ("pid:1", "pid 1"),
        (f"pid:{os.getpid()}", "ancestors"),
        ("command:no-such-thing", "no process matches"),
    ):
        done = squall("inject", "process.pause", "-t", target, "-d", "1s")
        assert (done.returncode, said in done.stderr) == (4, True), done.stderr


def test_a_document_with_errors_lists_them_all(squall: Any, tmp_path: Path) -> None:
    document = tmp_path / "wrong.yaml"
    document.write_text(
        "apiVersion: squall.dev/v1alpha1\nkind: Experiment\nmetadata: {name: x}\n"
        "spec:\n  duration: 3\n  targets: {process: {comand: x}}\n  faults:\n    - {type: process.pauze}\n"
    )
    done = squall("run", str(document))
    assert done.returncode == 2
    for place, said in ((":5:", "3s"), (":6:", "command"), (":8:", "process.pause")):
        assert any(place in line and said in line for line in done.stderr.splitlines()), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_recovers_and_reports_and_a_second_one_does_not_skip_it(squall: Any, target: Any, number: int) -> None:
    with squall.start("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK) as process:
        wait_for(lambda: state_of(target.pid) == "T")
        process.send_signal(number)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert state_of(target.pid) in "SR"
    [run] = (squall.state / "runs").iterdir()
    assert (run / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_an_engine_that_dies_leaves_nothing(squall: Any, target: Any, number: int) -> None:
    with squall.start("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK) as process:
        wait_for(lambda: state_of(target.pid) == "T")
        process.send_signal(number)
        process.communicate(timeout=30)
    wait_for(lambda: state_of(target.pid) in ("S", "R"), 5)
    wait_for(lambda: not list((squall.state / "open").iterdir()), 5)
    assert squall("report", "last").returncode == 0, "its report can be written all the same"


def test_the_whole_process_group_dies_and_the_target_lives_on(squall: Any, target: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "squall", "inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK],
        env=squall.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    wait_for(lambda: state_of(target.pid) == "T")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: state_of(target.pid) in ("S", "R"), 5)


def test_both_dead_the_next_command_undoes_it(squall: Any, target: Any) -> None:
    with squall.start("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK) as process:
        wait_for(lambda: state_of(target.pid) == "T")
        for pid in proc.children_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
    assert state_of(target.pid) == "T", "nobody is left to undo it"
    done = squall("list")
    assert "had been killed: 1 step undone now" in done.stderr
    wait_for(lambda: state_of(target.pid) in ("S", "R"), 5)
    assert squall("recover").stdout == "Nothing to recover.\n"


@pytest.mark.slow
def test_stop_halt_and_status_from_another_terminal(squall: Any, target: Any) -> None:
    with squall.start("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "30s", *QUICK) as process:
        wait_for(lambda: state_of(target.pid) == "T")
        [status] = json.loads(squall("status", "--json").stdout)
        assert status["stage"] == "monitor"
        refused = squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "1s")
        assert refused.returncode == 4
        stopped = squall("stop")
        assert stopped.returncode == 0, stopped.stderr
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert squall("halt").returncode == 0
    assert squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "1s").returncode == 4
    assert squall("halt", "--off").returncode == 0
    assert state_of(target.pid) in "SR"


def test_what_cannot_be_read_any_more_can_be_forgotten(squall: Any) -> None:
    run = squall.state / "runs" / "20260101-000000-x-0000"
    run.mkdir(parents=True)
    (squall.state / "open").mkdir()
    (squall.state / "open" / run.name).touch()
    (run / "journal.jsonl").write_text("garbage\n")
    done = squall("recover")
    assert done.returncode == 5
    assert "LEFT BEHIND" in done.stderr
    assert squall("recover", run.name, "--forget").returncode == 0
    assert squall("recover").returncode == 0


def test_standin_serves_and_reports_what_was_not_called(squall: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("expectations:\n  - {match: {path: /a}, answer: {status: 200}}\n")
    with squall.start("standin", str(script)) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "http://127.0.0.1:" in line, line
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=15)
    assert process.returncode == 1
    assert "/a" in out


def test_proxy_serves_the_api_until_told_to_end(squall: Any) -> None:
    with squall.start("proxy", "--port", "0") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(line.split("http://127.0.0.1:")[1].split(",")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_shell_completion_knows_commands_and_faults(squall: Any) -> None:
    environment = {
        **squall.environment(),
        "_SQUALL_COMPLETE": "bash_complete",
        "COMP_WORDS": "squall inject tcp.la",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "squall"], env=environment, capture_output=True, text=True, check=False
    )
    assert "tcp.latency" in done.stdout


def test_a_state_folder_that_cannot_be_made_is_told(squall: Any, target: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    squall.state = tmp_path / "file" / "state"
    done = squall("inject", "process.pause", "-t", f"pid:{target.pid}", "-d", "1s")
    assert done.returncode == 1
    assert "SQUALL_STATE" in done.stderr
    assert state_of(target.pid) in "SR"
