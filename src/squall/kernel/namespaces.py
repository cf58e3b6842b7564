"""Network namespaces: told apart, reached again when the way in has gone, entered by one thread.

An inode number of a namespace is given to the next one as soon as it is free; its cookie never is (SO_NETNS_COOKIE,
Linux 5.14). setns(2) moves the calling thread alone: what only wants to look does so in a thread of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from squall.errors import TargetError
from squall.kernel import proc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "NAMED_IN",
    "NetworkNamespace",
    "enter",
    "entered",
    "in_a_new_one",
    "inside",
    "named",
    "network_of",
    "processes_in",
]

T = TypeVar("T")

NAMED_IN = ("/run/netns", "/run/docker/netns")
"""Where `ip netns` and Docker keep namespaces by name."""
_CLONE_NEWNET = 0x4000_0000
_NS_GET_NSTYPE = 0xB703
"""ioctl_nsfs(2)."""
_SO_NETNS_COOKIE = 71
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace: a path that led to it, and what it is told apart by.

    `cookie` is 0 where it cannot be had (a kernel before 5.14, or not root): then device and inode have to do, which
    a successor can get only after it is gone.
    """

    path: str
    cookie: int
    device: int
    inode: int

    @classmethod
    def at(cls, path: str) -> Self:
        """The namespace that this path leads to; OSError where nothing can be opened, TargetError where it is no such thing."""
        fd = _open(path)
        try:
            if not _is_network_namespace(fd):
                raise TargetError(f"{path} is not a network namespace")
            info = os.fstat(fd)
            return cls(path, _cookie(fd), info.st_dev, info.st_ino)
        finally:
            os.close(fd)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @property
    def key(self) -> str:
        """One word for it."""
        return f"netns:{self.cookie or f'{self.device}:{self.inode}'}"

    @property
    def own(self) -> bool:
        """Whether this process's first thread is in it."""
        return network_of() == (self.device, self.inode)

    def open(self) -> int:
        """A descriptor of exactly this namespace, by its path or any other way; TargetError when it is gone.

        A way of the kind /proc/PID/ns/net ends with the process, a name with `ip netns delete`, though the namespace
        lives on in its other processes: it is looked for there.
        """
        for way in self._ways():
            with contextlib.suppress(OSError):
                fd = _open(way)
                if self._is_at(fd):
                    return fd
                os.close(fd)
        raise TargetError(f"the network namespace {self.path} is gone")

    def there(self) -> bool:
        """Whether exactly this namespace can still be reached."""
        try:
            os.close(self.open())
        except TargetError:
            return False
        return True

    def _ways(self) -> Iterator[str]:
        yield self.path
        for folder in NAMED_IN:
            with contextlib.suppress(OSError):
                yield from (f"{folder}/{name}" for name in sorted(os.listdir(folder)))
        yield from (f"/proc/{pid}/ns/net" for pid in processes_in(self))

    def _is_at(self, fd: int) -> bool:
        info = os.fstat(fd)
        same = (info.st_dev, info.st_ino) == (self.device, self.inode) and _is_network_namespace(fd)
        return same and (not self.cookie or _cookie(fd) == self.cookie)


def network_of(pid: int | str = "self") -> tuple[int, int] | None:
    """Device and inode of a process's network namespace; None where it is gone or may not be seen."""
    try:
        info = os.stat(f"/proc/{pid}/ns/net")
    except OSError:
        return None
    return (info.st_dev, info.st_ino)


def processes_in(namespace: NetworkNamespace) -> list[int]:
    """The pids that can be seen to be in it, ascending."""
    wanted = (namespace.device, namespace.inode)
    return [pid for pid in proc.pids() if network_of(pid) == wanted]


def enter(fd: int) -> None:
    """Move the calling thread into the network namespace that this descriptor holds, for good; OSError where not allowed."""
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the network namespace cannot be entered: {os.strerror(number)}")


@contextlib.contextmanager
def entered(namespace: NetworkNamespace | int) -> Iterator[None]:
    """Within it the calling thread, and nothing else, is in this network namespace; sockets made there stay in it.

    Given by a descriptor (of `open`) it is entered at once, else it is looked up and held against its identity first.
    """
    home = _open("/proc/thread-self/ns/net")
    try:
        if isinstance(namespace, int):
            enter(namespace)
        else:
            fd = namespace.open()
            try:
                enter(fd)
            finally:
                os.close(fd)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def inside(fd: int, call: Callable[[], T]) -> T:
    """What `call` returns in a thread of its own that is in this network namespace; what it raises is raised."""

    def work() -> T:
        enter(fd)
        return call()

    return _in_a_thread(work)


def in_a_new_one(call: Callable[[], T]) -> T:
    """The same in a network namespace that is made for it, with nothing in it, and gone afterwards; OSError where not allowed."""

    def work() -> T:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"no network namespace can be made: {os.strerror(number)}")
        return call()

    return _in_a_thread(work)


def _in_a_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=guarded, name="squall-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def _cookie(fd: int) -> int:
    info = os.fstat(fd)
    try:
        if (info.st_dev, info.st_ino) == network_of("thread-self"):
            return _own_cookie()
        return inside(fd, _own_cookie)
    except OSError:
        return 0


def _own_cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def named(name: str) -> list[str]:
    """The paths under which a namespace of this name is kept."""
    return [path for folder in NAMED_IN if (path := f"{folder}/{name}") and Path(path).exists()]
