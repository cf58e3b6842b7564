"""A data plane that belongs to somebody: `python -m squall.proxy.owned CONFIG`, CONFIG being one JSON object.

    {"control": "/run/.../proxy.sock", "seed": 7, "options": {...},
     "routes": [{"name": "orders", "listen": "127.0.0.1:8081", "upstream": "127.0.0.1:8080"}]}

One route may stand in the object itself, without `routes`; `name` is "route" unless given; `control` may also be the
number of a connected socket. It binds everything, then writes `ready` and a line's end on standard output; or one line
`{"error": ..., "code": ...}` and exits with status 1. The owner holds the other end of standard input: when
that ends, every toxic is dropped at once, nothing new is accepted, open connections go on for at most `drain_s`
(10) seconds, and the process exits. SIGTERM does the same; `shutdown` ends everything at once.

Only the standard library and Squall's own errors are imported: it is up within tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from squall.errors import SquallError
from squall.proxy.control import Control, Operations
from squall.proxy.loop import ERROR, HANGUP, READ
from squall.proxy.options import Options
from squall.proxy.plane import Plane, ProxySpec
from squall.proxy.refusals import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["bind_unix", "main"]

_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_DRAIN_LOOK_S: Final = 0.1
_SAID_AT_ONCE: Final = 1 << 16
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PR_SET_TIMERSLACK: Final = 29
_GC_THRESHOLDS: Final = (50_000, 10, 10)
"""Closed connections are taken apart by hand; the collector is for what is left."""
_REALTIME_PRIORITY: Final = 10
_REALTIME_BURST_US: Final = 200_000


class Server:
    """One data plane process, from its configuration to its end."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._options = Options.read({"http": True, **_object(config, "options")})
        seed = config.get("seed")
        if seed is not None and type(seed) is not int:
            raise Invalid(f"seed: {seed!r} is not a whole number")
        self._plane = Plane(self._options, seed)
        self._control = Control(self._plane, Operations(self._plane, self._plane.loop.stop))
        self._draining_left_s: float | None = None
        self._path: str | None = None
        self._watch_owner()
        _prepare(self._options)
        self._open_routes(config)
        self._open_control(config.get("control"))

    def _open_routes(self, config: Mapping[str, Any]) -> None:
        for spec in _routes(config):
            self._plane.create(spec)

    def _open_control(self, where: object) -> None:
        if isinstance(where, str):
            self._control.listen(bind_unix(where))
            self._path = where
        elif type(where) is int:
            self._control.serve(socket.socket(fileno=where), self._drain)
        elif where is not None:
            raise Invalid(f"control: {where!r} is neither a path nor a descriptor")

    def run(self) -> None:
        """Serve until told to stop, or until the owner is gone and the connections with it."""
        loop = self._plane.loop
        with self._signals():
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_GC_THRESHOLDS)
            loop.run()
        self._let_go()
        self._plane.close()
        loop.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - pathlib costs milliseconds at start

    def _watch_owner(self) -> None:
        fd = sys.stdin.fileno()
        os.set_blocking(fd, False)

        def gone(_events: int) -> None:
            try:
                said = os.read(fd, _SAID_AT_ONCE)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if said:
                self._told(said)
            else:
                self._plane.loop.ignore(fd)
                self._drain()

        self._plane.loop.handle(fd, gone)
        try:
            self._plane.loop.want(fd, READ | HANGUP | ERROR)
        except PermissionError as error:
            raise Invalid("standard input must be a pipe that the owner holds, not a file") from error

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT arrive as bytes on a socket that the loop watches: no handler runs in mid-event."""
        hear, ring = socket.socketpair()
        for end in (hear, ring):
            end.setblocking(False)
        signal.set_wakeup_fd(ring.fileno(), warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, lambda _number, _frame: None)

        def heard(_events: int) -> None:
            if not _ENDING.isdisjoint(hear.recv(64)):
                self._drain()

        self._plane.loop.handle(hear.fileno(), heard)
        self._plane.loop.want(hear.fileno(), READ)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            hear.close()
            ring.close()

    def _told(self, said: bytes) -> None:
        """The owner has written something; a data plane is told everything through its control socket."""

    def _let_go(self) -> None:
        """Before it ends: nothing new is to come here any more."""

    def _drain(self) -> None:
        """The owner is gone: back to a plain relay at once, then out when nobody needs it any more."""
        if self._draining_left_s is not None:
            return
        self._let_go()
        self._plane.clear_toxics()
        self._plane.stop_listening()
        self._draining_left_s = self._options.drain_s
        self._look_again()

    def _look_again(self) -> None:
        left_s = self._draining_left_s or 0
        if left_s <= 0 or not self._plane.open_connections():
            self._plane.loop.stop()
            return
        self._draining_left_s = left_s - _DRAIN_LOOK_S
        self._plane.loop.call_later(_DRAIN_LOOK_S, self._look_again)


def bind_unix(path: str) -> socket.socket:
    """A listening unix socket at a path of any length, only for its owner; Invalid when it cannot be had.

    The kernel takes 107 bytes at most, so it is bound through /proc/self/fd/N of its folder.
    """
    folder, name = os.path.split(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            short = f"/proc/self/fd/{fd}/{name}"
            if _is_abandoned(short):
                os.unlink(name, dir_fd=fd)
            listener.bind(short)
            os.chmod(name, 0o600, dir_fd=fd)
        finally:
            os.close(fd)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise Invalid(f"control: cannot bind {path}: {error.strerror or error}") from error
    return listener


def _is_abandoned(path: str) -> bool:
    """Whether there is a socket at this path that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise Invalid(f"{name}: an object is needed")
    return value


def _routes(config: Mapping[str, Any]) -> list[ProxySpec]:
    routes = config.get("routes")
    if routes is None:
        routes = [config] if "upstream" in config else []
    if not isinstance(routes, list):
        raise Invalid("routes: a list is needed")
    specs = []
    for route in routes:
        if (
            not isinstance(route, dict)
            or not isinstance(route.get("listen"), str)
            or not isinstance(route.get("upstream"), str)
        ):
            raise Invalid(f"a route needs `listen` and `upstream`, not {route!r}")
        specs.append(
            ProxySpec(
                str(route.get("name", "route")), route["listen"], route["upstream"], bool(route.get("enabled", True))
            )
        )
    return specs


def _prepare(options: Options) -> None:
    """Settle into the long run: descriptors, timers, memory, scheduling."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)  # keep big pieces mapped: no mmap, page fault and munmap for each read
    libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)
    if options.realtime:
        resource.setrlimit(resource.RLIMIT_RTTIME, (_REALTIME_BURST_US, _REALTIME_BURST_US * 5))
        signal.signal(
            signal.SIGXCPU, lambda _number, _frame: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        )
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REALTIME_PRIORITY))
        except PermissionError as error:
            raise Invalid("option realtime: this user may not use SCHED_FIFO (it needs CAP_SYS_NICE)") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one data plane; the exit status. `argv` is what follows the module's name."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if len(argv) != 1:
            raise Invalid("one argument is needed: the configuration as a JSON object")
        try:
            config = json.loads(argv[0])
        except ValueError as error:
            raise Invalid(f"the configuration is not JSON: {error}") from error
        if not isinstance(config, dict):
            raise Invalid("the configuration is a JSON object")
        server = Server(config)
    except SquallError as error:
        sys.stdout.write(json.dumps({"error": str(error), "code": getattr(error, "code", "failed")}) + "\n")
        sys.stdout.flush()
        return 1
    server.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
