"""Where programs are attached. A hook is data; `attach` makes it so and returns the descriptors that hold it.

When they are closed, or their owner ends in any way, the kernel takes the program off. Attach types are those of
`enum bpf_attach_type` in linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from squall.kernel import cgroups
from squall.kernel.bpf.calls import link_create, raw_tracepoint_open
from squall.kernel.bpf.library import BpfError

if TYPE_CHECKING:
    from squall.kernel.bpf.collection import Collection

__all__ = ["CGROUP_TYPES", "CgroupHook", "Hook", "NetnsHook", "TcxHook", "TracingHook", "UprobeHook"]

CGROUP_TYPES = {
    "ingress": 0, "egress": 1, "sock_create": 2, "sockops": 3, "bind4": 8, "bind6": 9, "connect4": 10, "connect6": 11,
    "sendmsg4": 14, "sendmsg6": 15, "recvmsg4": 19, "recvmsg6": 20, "getsockopt": 21, "setsockopt": 22,
    "getpeername4": 29, "getpeername6": 30, "getsockname4": 31, "getsockname6": 32, "sock_release": 34, "lsm": 43,
}  # fmt: skip
_SK_LOOKUP, _PERF_EVENT, _TCX = 36, 41, {"ingress": 46, "egress": 47}
_SET_BPF, _ENABLE = 0x40042408, 0x2400
"""PERF_EVENT_IOC_SET_BPF and _ENABLE, from linux/perf_event.h."""
_PERF_CLOEXEC = 8
_PERF_ATTRIBUTES_SIZE = 112
_PERF_NUMBERS = {"x86_64": 298, "aarch64": 241}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Hook(Protocol):
    """A place for one program of a collection."""

    @property
    def program(self) -> str:
        """The program's name in the source."""

    def attach(self, collection: Collection) -> tuple[int, ...]:
        """Attach it; the descriptors that hold it, to be closed in reverse. BpfError or OSError: nothing is attached."""


@dataclass(frozen=True, slots=True)
class CgroupHook:
    """A cgroup of the unified hierarchy and all below it; never its root, in which everything on the machine is."""

    program: str
    folder: str
    type: str
    """One of CGROUP_TYPES."""

    def attach(self, collection: Collection) -> tuple[int, ...]:  # noqa: D102 - as the protocol says
        if os.path.realpath(self.folder) in {os.path.realpath(tree.mount) for tree in cgroups.hierarchies()}:
            raise BpfError(f"{self.folder} is a root cgroup: nothing is ever attached there", errno.EPERM)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return (link_create(collection.program(self.program), folder, CGROUP_TYPES[self.type]),)
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class TcxHook:
    """An interface of this process's network namespace, after the programs that are there already. Linux >= 6.6."""

    program: str
    ifindex: int
    direction: Literal["ingress", "egress"]

    def attach(self, collection: Collection) -> tuple[int, ...]:  # noqa: D102
        return (link_create(collection.program(self.program), self.ifindex, _TCX[self.direction]),)


@dataclass(frozen=True, slots=True)
class NetnsHook:
    """The lookup of listening sockets in a network namespace, given by its open file. Linux >= 5.9."""

    program: str
    netns_fd: int

    def attach(self, collection: Collection) -> tuple[int, ...]:  # noqa: D102
        return (link_create(collection.program(self.program), self.netns_fd, _SK_LOOKUP),)


@dataclass(frozen=True, slots=True)
class TracingHook:
    """Where a tracing or LSM program was loaded for."""

    program: str

    def attach(self, collection: Collection) -> tuple[int, ...]:  # noqa: D102
        return (raw_tracepoint_open(collection.program(self.program)),)


@dataclass(frozen=True, slots=True)
class UprobeHook:
    """An instruction of a file, in one process only; others that run the same file pay nothing.

    `offset` is in the file, not in memory. `path` is opened by the kernel as this process sees it: /proc/PID/root/...
    for a target in another mount namespace. `cookie` is what bpf_get_attach_cookie gives (needs Linux >= 5.15).
    `returns`: where the function that begins there returns, by a changed return address: never for Go, which moves stacks.
    """

    program: str
    path: str
    offset: int
    pid: int
    cookie: int | None = None
    returns: bool = False

    def attach(self, collection: Collection) -> tuple[int, ...]:  # noqa: D102
        event = _uprobe_event(self.path, self.offset, self.pid, returns=self.returns)
        try:
            program = collection.program(self.program)
            if self.cookie is not None:
                return (event, link_create(program, event, _PERF_EVENT, more=struct.pack("<Q", self.cookie)))
            fcntl.ioctl(event, _SET_BPF, program)
            fcntl.ioctl(event, _ENABLE, 0)
        except BaseException:
            os.close(event)
            raise
        return (event,)


def _uprobe_event(path: str, offset: int, pid: int, *, returns: bool) -> int:
    """A perf event on one instruction in one process (perf_event_open(2), the uprobe PMU)."""
    try:
        with open("/sys/bus/event_source/devices/uprobe/type") as file:
            kind = int(file.read())
    except OSError as error:
        raise BpfError("this kernel has no uprobes", error.errno or errno.ENOENT) from None
    name = ctypes.create_string_buffer(path.encode())
    attributes = struct.pack(
        "<IIQQQQQIIQQ", kind, _PERF_ATTRIBUTES_SIZE, int(returns), 0, 0, 0, 0, 0, 0, ctypes.addressof(name), offset
    )
    block = ctypes.create_string_buffer(attributes, _PERF_ATTRIBUTES_SIZE)
    number = _PERF_NUMBERS.get(platform.machine(), -1)
    words = (number, 0, pid, -1, -1, _PERF_CLOEXEC)
    arguments = [ctypes.c_long(word) for word in words]
    fd = int(_libc.syscall(arguments[0], block, *arguments[2:]))
    if fd < 0:
        raise BpfError(f"no uprobe at {path}+{offset:#x} in process {pid}", ctypes.get_errno())
    return fd
