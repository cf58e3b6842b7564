"""What the five services share: a fixed pool of workers behind a front, routes, a store, and how they find each other."""

from __future__ import annotations

import argparse
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from client import Answer, CallFailed
from front import Connection, Front, Request
from store import Store

__all__ = ["Answer", "Request", "Service"]

Handler = Callable[[Request], Answer]
PR_SET_PDEATHSIG = 1


class Service:
    """A service: `@service.route("POST", "/orders")` marks its handlers, `service.run()` serves until it is ended.

    `workers` handlers run at once, `waiting` requests wait for one, further ones are answered with 503.
    """

    def __init__(self, name: str, *, port: int, workers: int, waiting: int = 64) -> None:
        self.name = name
        self._options = _options(name, port, workers, waiting)
        self._routes: dict[tuple[str, str], Handler] = {}
        self._jobs: queue.Queue[tuple[Connection, Request]] = queue.Queue(self._options.waiting)
        self._lock = threading.Lock()
        self._counts = {"busy": 0, "served": 0, "failed": 0, "refused": 0, "abandoned": 0}
        self._front: Front | None = None

    def store(self, schema: str) -> Store:
        """This service's own database, with its tables."""
        folder = Path(self._options.data)
        folder.mkdir(parents=True, exist_ok=True)
        return Store(folder / f"{self.name}.db", schema)

    def url(self, other: str, default_port: int) -> str:
        """Where another service is: given as `--to NAME=URL`, else on its own default port."""
        given: dict[str, str] = dict(each.split("=", 1) for each in self._options.to)
        return given.get(other, f"http://127.0.0.1:{default_port}").rstrip("/")

    def route(self, method: str, path: str) -> Callable[[Handler], Handler]:
        """Mark the handler of this method and path."""

        def add(handler: Handler) -> Handler:
            self._routes[method, path] = handler
            return handler

        return add

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        if self._options.parent:
            _end_with(self._options.parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._front = Front(self._listener(), self._jobs, self._at_once, lambda: self._count("refused", 1))
        for number in range(self._options.workers):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()
        try:
            self._front.run()
        except KeyboardInterrupt:
            sys.exit(130)

    def _listener(self) -> socket.socket:
        if self._options.fd is not None:
            return socket.socket(fileno=self._options.fd)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._options.port))
        except OSError as error:
            sys.exit(f"shop-{self.name}: port {self._options.port}: {error.strerror}; choose another with --port")
        print(f"shop-{self.name}: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        return listener

    def _at_once(self, request: Request) -> Answer | None:
        if request.method == "GET" and request.path == "/health":
            return Answer(200, {"service": self.name, "pid": os.getpid()})
        if request.method == "GET" and request.path == "/workers":
            total, waiting = self._options.workers, self._jobs.qsize()
            with self._lock:
                return Answer(200, {"service": self.name, "total": total, "queue": waiting, **self._counts})
        if (request.method, request.path) not in self._routes:
            return Answer(404, {"error": f"{self.name} has no {request.method} {request.path}"})
        return None

    def _count(self, what: str, by: int) -> None:
        with self._lock:
            self._counts[what] += by

    def _work(self) -> None:
        front = self._front
        while front is not None:
            connection, request = self._jobs.get()
            if connection.gone():  # nobody waits for this answer any more
                self._count("abandoned", 1)
                front.give_back(connection, usable=False)
                continue
            self._count("busy", 1)
            answer = self._handle(request)
            with self._lock:
                self._counts["busy"] -= 1
                self._counts["served"] += 1
                self._counts["failed"] += answer.status >= 500  # noqa: PLR2004 - a server's own failure
            front.give_back(connection, usable=connection.answer(answer))

    def _handle(self, request: Request) -> Answer:
        try:
            return self._routes[request.method, request.path](request)
        except CallFailed as error:
            return Answer(502, {"error": str(error)})
        except Exception:  # noqa: BLE001 - one bad request must not end a worker
            traceback.print_exc()
            return Answer(500, {"error": f"{self.name} failed; its log says why"})


def _options(name: str, port: int, workers: int, waiting: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"shop-{name}", description=f"The shop's {name} service.")
    parser.add_argument(
        "--port", type=int, default=port, help="port on 127.0.0.1, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--fd", type=int, help="a bound socket that is inherited, instead of a port")
    parser.add_argument("--data", default="shop-data", help="folder of the databases (default: ./%(default)s)")
    parser.add_argument("--workers", type=int, default=workers, help="requests handled at once (default: %(default)s)")
    parser.add_argument("--waiting", type=int, default=waiting, help="requests that may wait (default: %(default)s)")
    parser.add_argument("--to", action="append", default=[], metavar="NAME=URL", help="where another service is")
    parser.add_argument("--parent", type=int, help="end when the process with this pid, the parent, ends")
    return parser.parse_args()


def _end_with(parent: int) -> None:
    """Be killed by the kernel as soon as the parent ends, however it ends, even while this process is stopped."""
    import ctypes  # only needed under a supervisor

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)
