"""A network namespace is found by name or path, and never mistaken for its successor."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from squall.errors import TargetError
from squall.kernel import namespaces
from squall.kernel.namespaces import NetworkNamespace
from squall.targets import Protected, find_netns, group_protection
from tests import specimens
from tests.namespaces import named_netns, sleeper_in


def test_a_name_of_ip_netns_and_its_paths_are_the_same_target() -> None:
    with named_netns() as name, sleeper_in(name) as specimen:
        target = find_netns(name)
        assert target.label == f"network namespace {name}"
        assert target.alive()
        assert target.processes() == [specimen.pid]
        for path in (f"/run/netns/{name}", f"/proc/{specimen.pid}/ns/net"):
            assert find_netns(path).key == target.key
        assert group_protection(target, Protected()) is None
        assert target.to_json()["path"] == f"/run/netns/{name}"
    assert not target.alive()


def test_one_that_was_made_anew_is_another() -> None:
    with named_netns() as name:
        before = find_netns(name)
        for _ in range(20):  # an inode number is given away again soon
            subprocess.run(["ip", "netns", "delete", name], check=True)
            subprocess.run(["ip", "netns", "add", name], check=True)
            assert find_netns(name).key != before.key
            assert not before.alive()


def test_it_is_reached_through_another_process_when_the_way_in_has_gone() -> None:
    with named_netns() as name, sleeper_in(name) as first, sleeper_in(name) as second:
        target = find_netns(f"/proc/{first.pid}/ns/net")
        subprocess.run(["ip", "netns", "delete", name], check=True)
        first.popen.kill()
        first.popen.wait()
        assert target.alive()
        assert target.processes() == [second.pid]
        second.popen.kill()
        second.popen.wait()
        assert not target.alive()


def test_without_a_cookie_it_is_held_so_that_no_other_gets_its_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel before 5.14 answers is played."""
    monkeypatch.setattr(namespaces, "_cookie", lambda _: 0)
    with named_netns() as name:
        before = find_netns(name)
        assert before.namespace.cookie == 0
        assert before.alive()
        for _ in range(20):
            subprocess.run(["ip", "netns", "delete", name], check=True)
            subprocess.run(["ip", "netns", "add", name], check=True)
            assert find_netns(name).key != before.key
            assert not before.alive()


@pytest.mark.parametrize("pid", ["1", "self", str(os.getppid())])
def test_the_machines_own_and_squalls_own_are_never_hit(pid: str) -> None:
    if namespaces.network_of(pid) is None:
        pytest.skip("needs root to see it: run the tests with sudo to see this")
    reason = str(group_protection(find_netns(f"/proc/{pid}/ns/net"), Protected()))
    assert reason.endswith("is the one of pid 1, of Squall itself or of one of its ancestors")


def test_who_is_protected_protects_the_namespace_that_it_is_in() -> None:
    with named_netns() as name, sleeper_in(name) as specimen:
        reason = group_protection(find_netns(name), Protected(frozenset({"sleep"})))
        assert reason == f"network namespace {name} holds pid {specimen.pid}, which is protected by the configuration"


@pytest.mark.parametrize("name", ["", "no-such-namespace", "..", "../proc/1/ns/net"])
def test_a_name_that_is_not_there_is_said_with_the_places(name: str) -> None:
    expected = f"there is no network namespace {name!r}; looked in /run/netns and /run/docker/netns"
    with pytest.raises(TargetError, match=re.escape(expected)):
        find_netns(name)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/proc/self/ns/mnt", "is not a network namespace"),
        ("/dev/null", "is not a network namespace"),
        ("/", "is not a network namespace"),
        ("/proc/4194305/ns/net", "cannot be looked at: No such file or directory"),
    ],
)
def test_what_is_no_network_namespace_is_refused(path: str, why: str) -> None:
    with pytest.raises(TargetError, match=re.escape(why)):
        find_netns(path)


def test_only_the_thread_that_entered_it_is_in_it() -> None:
    with named_netns() as name:
        namespace = NetworkNamespace.at(f"/run/netns/{name}")
        home = namespaces.network_of("thread-self")
        with namespaces.entered(namespace):
            assert namespaces.network_of("thread-self") == (namespace.device, namespace.inode)
            assert NetworkNamespace.at("/proc/thread-self/ns/net").key == namespace.key
        assert namespaces.network_of("thread-self") == home
        fd = namespace.open()
        try:
            assert namespaces.inside(fd, lambda: Path("/proc/thread-self/net/dev").read_text().count(":")) >= 1
            with pytest.raises(ZeroDivisionError):
                namespaces.inside(fd, lambda: 1 // 0)
        finally:
            os.close(fd)
        assert namespaces.network_of("thread-self") == home
        assert NetworkNamespace.from_json(namespace.to_json()) == namespace


def test_a_bare_interpreter_can_enter_it() -> None:
    with named_netns() as name:
        script = (
            "from squall.kernel import namespaces as n\n"
            f"there = n.NetworkNamespace.at('/run/netns/{name}')\n"
            "with n.entered(there): print(n.network_of('thread-self') == (there.device, there.inode))\n"
        )
        assert specimens.elsewhere(script).stdout == "True\n"
