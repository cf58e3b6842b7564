"""The world of a test marked `kernel`: a network namespace and a cgroup of its own, or the test does not start.

Kernel tests attach programs, shape queues and send traffic. Nothing of that may reach the machine that runs them, so a
marked test never runs in the network namespace or the root cgroup of pid 1. Before its first fixture the pytest process
itself moves into a fresh network namespace (loopback up, nothing else in it) and a fresh cgroup v2 below its own; after
its last one it moves back, and what the test left there is ended, removed and reported as the test's error.

Fixtures of a marked test that start processes or make interfaces are function-scoped: another test is another world.
Only the main thread moves (and the threads it starts then): that is where pytest runs tests.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import signal
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["KernelWorld", "kernel_world", "pytest_runtest_setup", "pytest_runtest_teardown"]

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
EMPTY_SECONDS_MAX = 10.0
"""What a test started may take this long to end after it; then it was left behind."""

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)
_worlds = pytest.StashKey["KernelWorld"]()


class WorldError(Exception):
    """The world of a kernel test could not be had, or something was left in it."""


@dataclass(frozen=True, kw_only=True)
class KernelWorld:
    """Where a kernel test happens."""

    cgroup: Path
    """Its cgroup v2: pytest and all that the test starts is below it, and nothing else is."""
    mount: Path
    """Where cgroup v2 is mounted."""
    exits: ExitStack

    def subgroup(self, name: str) -> Path:
        """A new, empty cgroup below the test's own; removed after the test."""
        folder = self.cgroup / name
        folder.mkdir()
        return folder


@pytest.fixture
def kernel_world(request: pytest.FixtureRequest) -> KernelWorld:
    """The world of this test, which is marked `kernel`."""
    world = request.node.stash.get(_worlds, None)
    if world is None:
        pytest.fail("only a test marked `kernel` has a world of its own: add @pytest.mark.kernel", pytrace=False)
    return world


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Enter the world before the first fixture."""
    if item.get_closest_marker("kernel") is not None:
        if os.geteuid() != 0:
            pytest.skip("kernel tests need root, for a network namespace and a cgroup of their own: sudo make test")
        try:
            item.stash[_worlds] = enter()
        except (WorldError, OSError) as error:
            pytest.fail(f"not started, for it would run in the machine's own world: {error}", pytrace=False)
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Leave the world after the last fixture."""
    try:
        return (yield)
    finally:
        world = item.stash.get(_worlds, None)
        if world is not None:
            del item.stash[_worlds]
            try:
                world.exits.close()
            except WorldError as error:
                pytest.fail(str(error), pytrace=False)


def enter() -> KernelWorld:
    """Move the calling thread into a new network namespace and its process into a new cgroup.

    Raises:
        WorldError: what could not be had, and why; nothing has changed then.
        OSError: the same, from the kernel.
    """
    with ExitStack() as exits:
        mount, before = cgroup_mount(), _network_of("thread-self")
        cgroup = _enter_cgroup(mount, exits)
        _enter_network(exits)
        if _network_of("thread-self") in {before, _network_of("1"), None}:
            raise WorldError("the network namespace is still that of before, or that of pid 1")
        if own_cgroup() in {"/", own_cgroup("1")}:
            raise WorldError(f"the cgroup is still {own_cgroup()}, the root or that of pid 1")
        return KernelWorld(cgroup=cgroup, mount=mount, exits=exits.pop_all())


def cgroup_mount() -> Path:
    """Where cgroup v2 is mounted (on a hybrid machine beside v1)."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise WorldError("cgroup v2 is not mounted; to have it: mount -t cgroup2 none /sys/fs/cgroup")


def own_cgroup(pid: str = "self") -> str:
    """The path of a process's cgroup v2, from the mount's root."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise WorldError("this kernel has no cgroup v2")


def _enter_cgroup(mount: Path, exits: ExitStack) -> Path:
    before = mount / own_cgroup().lstrip("/")
    cgroup = before / f"squall-test-{os.getpid()}-{next(_numbers)}"
    inside = cgroup / "test"  # so that the test's cgroup itself has no process, as one with controllers must not
    cgroup.mkdir()
    exits.callback(_end_and_remove, cgroup)
    inside.mkdir()
    _move_here(inside)
    exits.callback(_move_here, before)
    return cgroup


def _move_here(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def _end_and_remove(cgroup: Path) -> None:
    """Remove a cgroup with all below it; processes that stay longer than the bound are ended, and complained about."""
    left: set[str] = set()
    began = time.monotonic()
    while pids := _pids_below(cgroup):
        if (late := time.monotonic() - began) > 2 * EMPTY_SECONDS_MAX:
            raise WorldError(f"{cgroup} cannot be emptied of {pids}")
        if late > EMPTY_SECONDS_MAX:
            left |= {f"{pid} {_command_of(pid)}" for pid in pids}
            for pid in pids:
                _kill(pid, cgroup)
        time.sleep(0.01)
    for folder, _, _ in os.walk(cgroup, topdown=False):
        Path(folder).rmdir()
    if left:
        raise WorldError(f"the test left processes behind, which were ended: {', '.join(sorted(left))}")


def _pids_below(cgroup: Path) -> list[int]:
    """Living processes at any depth; zombies hold nothing, and a removed cgroup has none."""
    found: list[int] = []
    for folder, _, _ in os.walk(cgroup):
        try:
            found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
        except OSError:
            continue
    return found


def _kill(pid: int, cgroup: Path) -> None:
    """End a process, by a handle that cannot become another's, if it still is in the cgroup."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid in _pids_below(cgroup):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"


def _network_of(who: str) -> tuple[int, int] | None:
    """A network namespace's identity; None where it is not to be read (pid 1's needs ptrace rights over it)."""
    try:
        facts = Path(f"/proc/{who}/ns/net").stat()
    except PermissionError:
        return None
    return facts.st_dev, facts.st_ino


def _enter_network(exits: ExitStack) -> None:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    exits.callback(os.close, before)
    _call("unshare", CLONE_NEWNET)
    exits.callback(_call, "setns", before, CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        (flags,) = struct.unpack_from("H", request, 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise WorldError(f"{name}: {os.strerror(number)} (needs CAP_SYS_ADMIN, which root in a container may lack)")
