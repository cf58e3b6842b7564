"""Processes are found by exactly one criterion, and what is not found is explained."""

from __future__ import annotations

import os
import random
import re
import sys
import threading
from pathlib import Path

import pytest

from squall.errors import TargetError
from squall.kernel import proc
from squall.targets import find_processes
from squall.targets.process import command_names
from tests import specimens

LISTEN = """
import socket, sys, time
server = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ("/usr/sbin/nginx -g x", {"nginx"}),
        ("/usr/bin/python3.11 -u /app/shop.py --port 80", {"python3.11", "shop.py"}),
        ("python -X dev -W error app.py", {"python", "app.py"}),
        ("python3 -I -S -m http.server 80", {"python3", "http.server"}),
        ("python3 -Im shop.api", {"python3", "shop.api"}),
        ("python3 -c print('a/b') x.py", {"python3"}),
        ("python3 -Ic code x.py", {"python3"}),
        ("node --inspect -r ts-node server.js", {"node", "server.js"}),
        ("node -pe code server.js", {"node"}),
        ("java -server -cp a.jar:b.jar com.shop.Main", {"java", "com.shop.Main"}),
        ("java -Xmx1g -jar /opt/shop.jar", {"java", "shop.jar"}),
        ("bash -o pipefail /opt/run.sh", {"bash", "run.sh"}),
        ("bash -lc /opt/run.sh", {"bash"}),
        ("ruby -I lib app.rb", {"ruby", "app.rb"}),
        ("perl -ne code file.txt", {"perl"}),
        ("python3", {"python3"}),
        ("", set()),
    ],
)
def test_a_command_is_the_programs_name_or_what_an_interpreter_runs(argv: str, names: set[str]) -> None:
    assert command_names(argv.split()) == names


def test_a_server_that_rewrote_its_arguments_is_found_by_what_it_wrote() -> None:
    assert command_names(["nginx: master process /usr/sbin/nginx"]) == {"nginx"}
    assert command_names(["postgres: checkpointer"]) == {"postgres: checkpointer"}


def test_a_command_is_found_by_its_exact_name(tmp_path: Path) -> None:
    program = tmp_path / f"squall-specimen-{os.getpid()}"
    program.symlink_to("/bin/sleep")
    with specimens.started(str(program), "600") as one, specimens.started(str(program), "600") as two:
        specimens.wait_for(lambda: len(find_or_none(program.name)) == 2, "both are there")
        found = find_processes(command=program.name)
        assert [target.identity.pid for target in found] == sorted([one.pid, two.pid])
        assert found[0].label == f"{program.name} (pid {found[0].identity.pid})"
        with pytest.raises(TargetError, match=re.escape(f"there is {program.name} (the name must be exact)")):
            find_processes(command=program.name[:-1].upper())


def find_or_none(command: str) -> list[object]:
    """What is found, nothing for none."""
    try:
        return list(find_processes(command=command))
    except TargetError:
        return []


def test_a_script_is_found_by_its_own_name(tmp_path: Path) -> None:
    script = tmp_path / f"shop_{os.getpid()}.py"
    script.write_text("import time\nprint('ready', flush=True)\ntime.sleep(600)\n")
    with specimens.started(sys.executable, "-u", str(script)) as specimen:
        specimens.wait_for(lambda: find_or_none(script.name), "it is there")
        (target,) = find_processes(command=script.name)
        assert target.identity.pid == specimen.pid
        assert target.command == script.name


def test_a_command_that_nobody_runs_is_explained() -> None:
    with pytest.raises(
        TargetError, match="no process matches command 'no-such-command-at-all'; the name is the base name of argv"
    ):
        find_processes(command="no-such-command-at-all")


def test_a_pid_is_found_and_a_gone_one_is_not() -> None:
    with specimens.sleeper() as specimen:
        (target,) = find_processes(pid=specimen.pid)
        assert (target.identity, target.command) == (specimen.identity, "sleep")
    with pytest.raises(TargetError, match=f"no process matches pid {specimen.pid}"):
        find_processes(pid=specimen.pid)
    with pytest.raises(TargetError):
        find_processes(pid=-1)


def test_a_zombie_is_not_found() -> None:
    with specimens.sleeper() as specimen:
        specimen.popen.kill()
        specimens.wait_for(lambda: specimen.state == "Z", "it is a zombie")
        with pytest.raises(TargetError, match="no process matches"):
            find_processes(pid=specimen.pid)


def test_a_threads_number_is_not_a_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(TargetError, match=f"is a thread of process {os.getpid()}: name the process"):
            find_processes(pid=thread.native_id)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_listening_port_is_found(host: str) -> None:
    # below the ports that the kernel gives to those who ask for any, so that no other test has it
    port = next(port for port in random.sample(range(20_000, 32_000), 50) if not proc.listening_inodes(port))
    if ":" in host and not Path("/proc/net/if_inet6").is_file():
        pytest.skip("this machine has no IPv6")
    with specimens.python(LISTEN, host, str(port)) as specimen:
        (target,) = find_processes(port=port)
        assert target.identity.pid == specimen.pid
    with pytest.raises(
        TargetError, match=f"no process matches listening port {port}; nobody listens on it in this network namespace"
    ):
        find_processes(port=port)


def test_a_unit_is_found_by_its_cgroup() -> None:
    with specimens.own_cgroup("memory") as folder, specimens.sleeper() as specimen:
        service = folder / "shop-inventory.service"
        service.mkdir()
        try:
            (service / "cgroup.procs").write_text(str(specimen.pid))
            for name in ("shop-inventory", "shop-inventory.service"):
                (target,) = find_processes(unit=name)
                assert target.identity.pid == specimen.pid
            with pytest.raises(TargetError, match=r"no process matches unit inventory\.service"):
                find_processes(unit="inventory")
        finally:
            (folder / "cgroup.procs").write_text(str(specimen.pid))
            service.rmdir()


def test_without_a_selector_nothing_is_selected() -> None:
    with pytest.raises(TargetError, match="no selector: nothing is selected"):
        find_processes()


def test_descendants_are_covered_only_when_asked_for() -> None:
    script = (
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    with specimens.python(script) as specimen:
        (target,) = find_processes(pid=specimen.pid)
        assert target.all == (target.identity,)
        whole = target.with_descendants()
        assert len(whole.all) == 2
        assert whole.label.endswith("and 1 below it")
        assert whole.to_json()["descendants"] == [whole.all[1].to_json()]
        os.kill(whole.all[1].pid, 9)
