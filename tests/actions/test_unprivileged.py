"""An ordinary user can fault what is his own, and is told clearly what he may not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests import specimens

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

    Run = Callable[[str, Sequence[str]], subprocess.CompletedProcess[str]]

OWN = """
import atexit, json, os, subprocess, time
from squall.actions import FileLimit, Pause, PauseCycle, Signal, Worker
from squall.kernel import proc
from squall.targets import ProcessIdentity, Protected, find_processes, protection

target = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
atexit.register(target.kill)
while proc.command_line(target.pid) != ["sleep", "600"]:
    time.sleep(0.005)
who, looks = ProcessIdentity.of(target.pid), {}
(found,) = find_processes(pid=target.pid)
looks["protected"] = protection(found, Protected())
memory = {"amount_bytes": 4 << 20, "spare_bytes": 0}
steps = [
    Pause(who, "it"), PauseCycle("test/1", who, "it", 5_000_000, 10_000_000), FileLimit(who, "it", 0),
    Worker("test/2", "squall.workers.cpu", "x", {"load": 0.1, "workers": 2}),
    Worker("test/3", "squall.workers.memory", "x", memory),
    Worker("test/4", "squall.workers.disk", "x", {"path": "/tmp", "spare_bytes": 0, "fill_bytes": 1 << 20}),
]
for number, step in enumerate(steps):
    step = step.prepare()
    held = step.do()
    on = step.verify().normal if number != 1 else step.in_force() is False
    for fd in held:
        os.close(fd)
    step.undo()
    looks[f"{number} {step.kind}"] = [on, step.verify().normal]
Signal(who, "it", "SIGTERM").prepare().do()
looks["ended by"] = target.wait(10)
print(json.dumps(looks))
"""

ANOTHERS = """
import json
from squall.actions import FileLimit, Pause, PauseCycle, Signal, Worker
from squall.errors import SquallError
from squall.targets import ProcessIdentity
who, folder, said = ProcessIdentity.of(int(sys.argv[1])), sys.argv[2], {}
steps = [
    Pause(who, "it"), PauseCycle("test/1", who, "it", 5_000_000, 10_000_000), FileLimit(who, "it", 0), Signal(who, "it", "SIGKILL"),
    Worker("test/2", "squall.workers.cpu", "x", {"load": 0.1, "cgroups": [folder]}),
    Worker("test/3", "squall.workers.disk", "x", {"path": "/root", "spare_bytes": 0, "fill_bytes": 1 << 20}),
]
for number, step in enumerate(steps):
    try:
        step.prepare().do()
        said[f"{number} {step.kind}"] = "done"
    except SquallError as error:
        said[f"{number} {step.kind}"] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs code as an ordinary user."""
    with specimens.unprivileged() as runner:
        yield runner


@pytest.mark.slow
def test_a_user_can_fault_his_own_processes(run: Run) -> None:
    ran = run(OWN, ())
    assert ran.returncode == 0, ran.stderr
    looks = json.loads(ran.stdout)
    assert looks.pop("ended by") == -15
    assert looks.pop("protected") is None
    assert len(looks) == 6
    assert all(look == [False, True] for look in looks.values()), looks


@specimens.needs_root
def test_what_is_anothers_is_refused_with_the_reason(run: Run) -> None:
    with specimens.own_cgroup() as folder, specimens.sleeper() as target:
        ran = run(ANOTHERS, (str(target.pid), str(folder)))
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        assert target.popen.poll() is None
        assert target.state == "S"
    assert said["0 pause"].startswith("TargetError: not permitted to signal process")
    assert "not permitted to stop it" in said["1 pause-cycle"]
    assert "may not be changed: Permission denied" in said["2 file-limit"]
    assert said["3 signal"].endswith("it belongs to another user; run as that user or as root")
    assert "cannot be joined (Permission denied): run as root" in said["4 worker"]
    assert "/root cannot be used: Permission denied" in said["5 worker"]


@specimens.needs_root
def test_a_port_of_another_user_is_explained(run: Run) -> None:
    script = (
        "import socket, time\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "import sys; sys.stdout.write('ready\\n' + str(server.getsockname()[1]) + '\\n'); sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    with specimens.python(script) as server:
        assert server.popen.stdout is not None
        port = int(server.popen.stdout.readline())
        ran = run(
            f"from squall.targets import find_processes\ntry:\n find_processes(port={port})\nexcept Exception as e: print(e)",
            (),
        )
    assert "somebody listens there, but who it is may not be seen: run as that user or as root" in ran.stdout
