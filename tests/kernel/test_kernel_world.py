"""A test marked `kernel` is in a world of its own, and leaves nothing of it behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import kernel_world as worlds

if TYPE_CHECKING:
    from tests.kernel_world import KernelWorld

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of one's own needs root")


def network(who: str) -> int:
    return Path(f"/proc/{who}/ns/net").stat().st_ino


@pytest.mark.kernel
def test_it_is_not_in_the_network_or_cgroup_of_pid_1(kernel_world: KernelWorld) -> None:
    assert worlds._network_of("thread-self") != worlds._network_of("1")
    assert worlds.own_cgroup() not in {"/", worlds.own_cgroup("1")}
    assert kernel_world.mount / worlds.own_cgroup().lstrip("/") == kernel_world.cgroup / "test"


@pytest.mark.kernel
def test_loopback_is_up_and_alone(kernel_world: KernelWorld) -> None:
    assert [name for _, name in socket.if_nameindex() if not name.endswith("0")] == [
        "lo"
    ]  # tunl0 and such are the kernel's
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    assert kernel_world.subgroup("targets").is_dir()


@pytest.mark.kernel
def test_what_it_starts_is_in_the_same_world(kernel_world: KernelWorld) -> None:
    code = "import os; print(os.stat('/proc/self/ns/net').st_ino, open('/proc/self/cgroup').read())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said.split()[0]) == network("thread-self")
    assert f"0::{worlds.own_cgroup()}\n" in said
    assert str(kernel_world.cgroup).endswith(Path(worlds.own_cgroup()).parent.name)


@needs_root
def test_the_machine_is_as_before_afterwards() -> None:
    before = network("thread-self"), worlds.own_cgroup()
    world = worlds.enter()
    (world.subgroup("a") / "b").mkdir()
    assert (network("thread-self"), worlds.own_cgroup()) != before
    world.exits.close()
    assert (network("thread-self"), worlds.own_cgroup()) == before
    assert not world.cgroup.exists()


@needs_root
def test_what_is_left_behind_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "EMPTY_SECONDS_MAX", 0.2)
    world = worlds.enter()
    process = subprocess.Popen(["sleep", "300"])
    with pytest.raises(worlds.WorldError, match=r"left processes behind.*sleep 300"):
        world.exits.close()
    assert process.wait(5) == -9
    assert not world.cgroup.exists()


@needs_root
@pytest.mark.slow
def test_a_test_without_a_world_does_not_start(pytester: pytest.Pytester) -> None:
    """With unshare refused, a marked test fails before it runs, and an unmarked one cannot ask for the fixture."""
    pytester.makeini("[pytest]\nmarkers = kernel\npythonpath = " + str(ROOT))
    pytester.makeconftest(
        "from tests import kernel_world as w\n"
        "from tests.kernel_world import kernel_world, pytest_runtest_setup, pytest_runtest_teardown\n"
        "class Refusing:\n"
        "    def unshare(self, flags): return -1\n"
        "w._libc = Refusing()\n"
    )
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.kernel\n"
        "def test_marked(): print('IT RAN')\n"
        "def test_unmarked(kernel_world): print('IT RAN')\n"
    )
    result = pytester.runpytest_subprocess("-s", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*not started, for it would run in the machine's own world: unshare*"])
    result.stdout.no_fnmatch_line("*IT RAN*")
