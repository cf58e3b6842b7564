"""What is never hit, whoever asks."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from squall.errors import InputError
from squall.kernel import proc
from squall.targets import ProcessIdentity, ProcessTarget, Protected, find_processes, protection
from tests import specimens

if TYPE_CHECKING:
    from pathlib import Path


def reason(pid: int, *protected: str) -> str | None:
    """Why this pid must not be hit."""
    return protection(ProcessTarget(ProcessIdentity.of(pid), "it"), Protected(frozenset(protected)))


def test_an_ordinary_process_may_be_hit() -> None:
    with specimens.sleeper() as specimen:
        assert reason(specimen.pid) is None


def test_the_systems_first_process_this_one_and_its_ancestors_are_never_hit() -> None:
    assert str(reason(1)).endswith("is pid 1, the system's own")
    for pid in (os.getpid(), *(pid for pid in proc.ancestors(os.getpid()) if pid != 1)):
        assert str(reason(pid)).endswith("is Squall itself or one of its ancestors")


def test_a_thread_of_the_kernel_is_never_hit() -> None:
    kernel = [pid for pid in proc.pids() if (stat := proc.read_stat(pid)) is not None and stat.kernel_thread]
    if not kernel:
        pytest.skip("no thread of the kernel can be seen here (a container's pid namespace)")
    assert str(reason(kernel[0])).endswith("is a thread of the kernel")


@pytest.mark.parametrize(("name", "why"), [("sshd", "a way into this machine"), ("Xorg", "the display server")])
def test_the_way_in_and_the_screen_are_never_hit(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / name).symlink_to("/bin/sleep")
    with specimens.started(str(tmp_path / name), "600") as specimen:
        specimens.wait_for(lambda: proc.command_line(specimen.pid)[:1] == [str(tmp_path / name)], "it runs")
        assert why in str(reason(specimen.pid))


def test_the_way_in_is_known_when_it_has_renamed_its_arguments(tmp_path: Path) -> None:
    """An ssh session shows "sshd: user [priv]" as its only argument; the kernel's name for it stays sshd."""
    (tmp_path / "sshd").symlink_to(sys.executable)
    script = "open('/proc/self/comm','w').write('sshd'); print('ready', flush=True); import time; time.sleep(600)"
    with specimens.python(script) as specimen:
        assert "a way into this machine" in str(reason(specimen.pid))


def test_parts_of_squall_are_never_hit() -> None:
    with specimens.started("sleep", "600", env={"SQUALL_RUN": "some-run", "PATH": os.environ["PATH"]}) as specimen:
        specimens.wait_for(lambda: proc.environment_value(specimen.pid, "SQUALL_RUN") is not None, "it runs")
        assert "is a part of Squall" in str(reason(specimen.pid))


def test_what_a_fault_would_cover_below_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "sshd").symlink_to("/bin/sleep")
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.argv[1], '600'])\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    with specimens.python(script, str(tmp_path / "sshd")) as specimen:
        (target,) = find_processes(pid=specimen.pid)
        (child,) = target.with_descendants().descendants
        specimens.wait_for(lambda: proc.command_line(child.pid)[:1] == [str(tmp_path / "sshd")], "its child runs")
        try:
            assert protection(target, Protected()) is None
            assert f"pid {child.pid} below it is a way into" in str(protection(target.with_descendants(), Protected()))
        finally:
            os.kill(child.pid, 9)


def test_what_the_configuration_lists_is_never_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text('protected = ["sleep", "postgres"]\n')
    monkeypatch.setenv("SQUALL_CONFIG", str(config))
    assert Protected.load().commands == {"sleep", "postgres"}
    with specimens.sleeper() as specimen:
        assert "is protected by the configuration" in str(reason(specimen.pid, *Protected.load().commands))


def test_a_home_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUALL_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    without = Protected.load().commands
    (tmp_path / "squall").mkdir()
    (tmp_path / "squall/config.toml").write_text('protected = ["my-database"]\n')
    assert Protected.load().commands == without | {"my-database"}


@pytest.mark.parametrize("text", ["protected = ", 'protected = "sshd"', "protected = [1]", "\xff"])
def test_a_configuration_that_cannot_be_read_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(text.encode("latin-1"))
    monkeypatch.setenv("SQUALL_CONFIG", str(config))
    with pytest.raises(InputError, match=str(config)):
        Protected.load()


def test_a_configuration_that_was_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(InputError, match="cannot be read"):
        Protected.load()
