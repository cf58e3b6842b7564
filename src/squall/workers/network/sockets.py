"""The sockets of a target, each with a tag in the kernel by which packets on an interface are known as its own.

Those that are there are borrowed for a moment (pidfd_getfd) and tagged; those that come are tagged by a program where
processes of the cgroup make sockets; what a tagged listener accepts has its tag. A cgroup's sockets are known by their
cgroup too, once they have sent something. Sockets of multipath TCP, for which the kernel sends by others of its own, are
known by the port that they listen on or by their addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct
from typing import TYPE_CHECKING, Any

from squall.kernel import cgroups, proc
from squall.kernel.bpf import CgroupHook
from squall.targets.identity import ProcessIdentity
from squall.workers.lifeline import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from squall.kernel.bpf import Collection

__all__ = ["Sockets", "roots"]

_PIDFD_GETFD = {"x86_64": 438, "aarch64": 438}
_ANYONE = 0
_YES = struct.pack("<I", 1)
_SOCKETS_MOST = 1 << 20
_MULTIPATH_TCP = 262
_MULTIPATH_PORTS = 3
"""The kind of the bits in the program's `ports` that says on which ports they listen for multipath TCP."""
_WORDS_A_KIND = 1024
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def roots() -> set[str]:
    """The root cgroups, to which nothing is ever attached."""
    return {os.path.realpath(tree.mount) for tree in cgroups.hierarchies()}


class Sockets:
    """Keeps the tags of one collection up to date. `scope` has `cgroup` (a folder) or `processes` and `descendants`."""

    def __init__(self, collection: Collection, scope: Mapping[str, Any]) -> None:
        self._collection, self._tags = collection, collection.map("tags")
        self._folder = scope.get("cgroup") or ""
        self._processes = [ProcessIdentity.from_json(one) for one in scope.get("processes", ())]
        self._descendants = bool(scope.get("descendants"))
        self._seen: set[str] = set()
        self._listed: set[int] = set()
        self._hooked: dict[str, tuple[int, ...]] = {}
        self.unfollowed = 0
        """How often the target went where its new sockets cannot be noted."""
        self.refresh()

    def refresh(self) -> None:
        """Look at who the target is now: attach where it makes sockets, tag what it has."""
        pids = self._pids()
        self._note(pids)
        for pid in pids:
            self._tag(pid)

    def _pids(self) -> list[int]:
        if self._folder:
            return cgroups.processes_below([self._folder])
        alive = [one.pid for one in self._processes if one.same_process()]
        below = [pid for one in alive for pid in proc.descendants(one)] if self._descendants else []
        return [*alive, *below]

    def _note(self, pids: Iterable[int]) -> None:
        """Have new sockets noted in the cgroups of these processes, for these processes alone."""
        wanted = {self._folder} if self._folder else {folder for pid in pids if (folder := _unified(pid))}
        for folder in wanted - set(self._hooked):
            if os.path.realpath(folder) in roots():
                self.unfollowed += 1
                self._hooked[folder] = ()
                continue
            with contextlib.suppress(FileNotFoundError):
                self._hooked[folder] = CgroupHook("note", folder, "sock_create").attach(self._collection)
        for folder in set(self._hooked) - wanted:
            for fd in self._hooked.pop(folder):
                os.close(fd)
        listed = {_ANYONE} if self._folder else set(pids)
        processes = self._collection.map("processes")
        for pid in listed - self._listed:
            processes[struct.pack("<I", pid)] = _YES
        for pid in self._listed - listed:
            with contextlib.suppress(KeyError):
                del processes[struct.pack("<I", pid)]
        self._listed = listed

    @property
    def noted(self) -> bool:
        """Whether the sockets that the target makes from now on are known."""
        return any(self._hooked.values())

    def _tag(self, pid: int) -> None:
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            for fd, name in _socket_names(pid):
                if name not in self._seen and len(self._seen) < _SOCKETS_MOST:
                    self._tag_one(handle, fd, name)
        finally:
            os.close(handle)

    def _tag_one(self, handle: int, fd: int, name: str) -> None:
        number = _PIDFD_GETFD.get(platform.machine(), 438)
        borrowed = _libc.syscall(ctypes.c_long(number), ctypes.c_long(handle), ctypes.c_long(fd), ctypes.c_long(0))
        if borrowed < 0:
            if ctypes.get_errno() in (1, 13):  # EPERM, EACCES
                raise Refused("this user may not look at the target's sockets (pidfd_getfd): run as root")
            return  # closed meanwhile
        with socket.socket(fileno=borrowed) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):
                    self._tags[struct.pack("<i", borrowed)] = _YES
                    if one.proto == _MULTIPATH_TCP:
                        self._know_by_address(one)
            self._seen.add(name)

    def _know_by_address(self, one: socket.socket) -> None:
        """Note where a socket of multipath TCP listens, or whom it is connected with; it must not be neither yet."""
        address, port = _plain(one.getsockname())
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            word = struct.pack("<I", _MULTIPATH_PORTS * _WORDS_A_KIND + (port >> 6))
            bits = self._collection.map("ports")
            bits[word] = struct.pack("<Q", struct.unpack("<Q", bits[word])[0] | 1 << (port & 63))
        else:
            remote, remote_port = _plain(one.getpeername())
            connections = self._collection.map("connections")
            connections[address + remote + struct.pack("<HH", port, remote_port)] = _YES
        self._collection.map("multipath")[struct.pack("<I", 0)] = _YES

    def close(self) -> None:
        """Note no more; the tags go with the collection."""
        for fds in self._hooked.values():
            for fd in fds:
                os.close(fd)
        self._hooked.clear()


def _unified(pid: int) -> str:
    return cgroups.folders_of(pid).get("", "")


def _plain(name: tuple[Any, ...]) -> tuple[bytes, int]:
    """An address as packets have it, IPv4 in the first four of sixteen bytes also where the socket is one of IPv6; the port."""
    host, port = str(name[0]).partition("%")[0], int(name[1])
    if host.startswith("::ffff:") and "." in host:
        host = host.removeprefix("::ffff:")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return packed.ljust(16, b"\0"), port


def _socket_names(pid: int) -> list[tuple[int, str]]:
    """Its descriptors that are sockets, by number, with the socket's own name "socket:[INODE]"."""
    found = []
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                name = os.readlink(f"/proc/{pid}/fd/{number}")
                if name.startswith("socket:["):
                    found.append((int(number), name))
    return found
