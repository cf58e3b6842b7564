"""The ways to die, each done by the engine to itself (and to others) when its point has come."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squall.actions.worker import TOKEN
from squall.kernel import proc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DEATHS", "MS_BIND", "MS_RDONLY", "MS_REMOUNT", "mount"]

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


def mount(source: str, target: str, kind: str = "none", flags: int = 0, options: str = "") -> None:
    """Mount it, as the system call of this name does; OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode() or None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def _engine(number: int) -> Callable[[Mapping[str, Any]], None]:
    return lambda _order: os.kill(os.getpid(), number)


def _guardian(number: int) -> Callable[[Mapping[str, Any]], None]:
    def die(order: Mapping[str, Any]) -> None:
        for pid in order["guardian"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    return die


def _both(to_guardian: int, to_engine: int) -> Callable[[Mapping[str, Any]], None]:
    def die(order: Mapping[str, Any]) -> None:
        _guardian(to_guardian)(order)
        os.kill(os.getpid(), to_engine)

    return die


def _session(_order: Mapping[str, Any]) -> None:
    me = os.getpid()
    for pid in proc.pids():
        with contextlib.suppress(ProcessLookupError):
            if pid != me and os.getsid(pid) == me:
                os.kill(pid, signal.SIGKILL)
    os.kill(me, signal.SIGKILL)


def _workers(_order: Mapping[str, Any]) -> None:
    for pid in proc.pids():
        if proc.environment_value(pid, TOKEN) is not None and proc.read_stat(pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                if _descends_from_me(pid):
                    os.kill(pid, signal.SIGKILL)


def _descends_from_me(pid: int) -> bool:
    return os.getpid() in proc.ancestors(pid)


def _fill(order: Mapping[str, Any]) -> None:
    """Take all the space that there is, then the last bytes of it."""
    fd = os.open(Path(order["disk"]) / "filler", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for size in (1 << 16, 4096, 1):
        with contextlib.suppress(OSError):
            for _ in range(1 << 14):
                os.write(fd, b"\0" * size)
    os.close(fd)


def _read_only(order: Mapping[str, Any]) -> None:
    """Whatever is opened below the state folder from now on is on a read-only mount; only in this mount namespace."""
    mount(order["state"], order["state"], flags=MS_BIND)
    mount("none", order["state"], flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def _no_larger(_order: Mapping[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _and_then(*before: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
    def die(order: Mapping[str, Any]) -> None:
        for one in before:
            one(order)
        os.kill(os.getpid(), signal.SIGKILL)

    return die


def _target(order: Mapping[str, Any]) -> None:
    os.kill(order["target"], signal.SIGKILL)


DEATHS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "engine": _engine(signal.SIGKILL),
    "guardian": _guardian(signal.SIGKILL),
    "both": _both(signal.SIGKILL, signal.SIGKILL),
    "engine-stopped": _engine(signal.SIGSTOP),
    "engine-term": _engine(signal.SIGTERM),
    "engine-segv": _engine(signal.SIGSEGV),
    "engine-hup": _engine(signal.SIGHUP),
    "engine-int": _engine(signal.SIGINT),
    "engine-quit": _engine(signal.SIGQUIT),
    "guardian-term": _guardian(signal.SIGTERM),
    "guardian-stopped": _guardian(signal.SIGSTOP),
    "both-term": _both(signal.SIGTERM, signal.SIGTERM),
    "engine-while-guardian-stopped": _both(signal.SIGSTOP, signal.SIGKILL),
    "group": lambda _order: os.killpg(0, signal.SIGKILL),
    "session": _session,
    "cgroup": lambda order: Path(order["cgroup"], "cgroup.kill").write_text("1") and None,
    "workers": _workers,
    "target": _target,
    "disk-full": _fill,
    "disk-read-only": _read_only,
    "files-no-larger": _no_larger,
    "disk-full-engine": _and_then(_fill),
    "disk-read-only-engine": _and_then(_read_only),
    "disk-full-both": _and_then(_fill, _guardian(signal.SIGKILL)),
    "disk-read-only-both": _and_then(_read_only, _guardian(signal.SIGKILL)),
}
"""Name: what is done at the point, given the order and the guardian's pid."""
