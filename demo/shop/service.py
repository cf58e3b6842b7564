"""What the five services share: pools of workers behind a front, routes, a store, and how they reach each other.

All that makes a service ride out a fault is in `Service.dependency` (what a call goes through) and `Service._pools` (who
gets a worker). Both are bare until the shop's settings file says otherwise, and follow it while they serve.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(folder) for folder in (HERE / "sdk", HERE.parents[1] / "sdk/python/src") if folder.is_dir()]


from client import Answer, CallFailed, Dependency, call  # noqa: E402 - they need the SDK
from front import Connection, Front, Request  # noqa: E402
from store import Store  # noqa: E402

from squall_resilience import deadline  # noqa: E402
from squall_resilience.policy.live import LiveSettings  # noqa: E402
from squall_resilience.policy.watching import watch  # noqa: E402
from squall_resilience.server.durations import RequestDurations  # noqa: E402
from squall_resilience.server.metrics import exposition  # noqa: E402
from squall_resilience.server.pools import PoolSettings, PoolsSettings, PriorityPools, retry_after_header  # noqa: E402
from squall_resilience.settings import Settings, count, seconds  # noqa: E402

if TYPE_CHECKING:
    from squall_resilience.errors import Overloaded

__all__ = ["Answer", "CallFailed", "Request", "Service", "call"]

Handler = Callable[[Request], Answer]
PR_SET_PDEATHSIG = 1
SERVER_ERROR = 500


@dataclass(frozen=True)
class Serving(Settings):
    """A service's section of the settings file: how many requests are handled at once, and which."""

    workers: int = count(16, 1, 1000)
    waiting: int = count(64, 0, 10_000)
    """Requests that may wait for a worker."""
    wait: float = seconds(3600.0, 0.01, 3600.0)
    """So long they may wait; then they are turned away."""
    kept_for_high: int = count(0, 0, 1000)
    """Workers that only requests with `X-Priority: high` get; with none, priorities do not matter."""

    def pools(self) -> PoolsSettings:
        """As the SDK's pools have it."""
        rest = max(1, self.workers - self.kept_for_high)
        return PoolsSettings(
            pools={
                "high": PoolSettings(workers=self.workers, sla=self.wait, waiting=self.waiting),
                "default": PoolSettings(workers=rest, sla=self.wait, waiting=self.waiting),
            },
            total=self.workers,
            shedding=False,
        )


@dataclass(frozen=True)
class Step(Settings):
    """What the settings in force are called, so that whoever wrote them sees when they are taken."""

    step: str = ""


class Service:
    """A service: `@service.route("POST", "/orders")` marks its handlers, `service.run()` serves until it is ended.

    `workers` handlers run at once, `waiting` requests wait for one, further ones are answered with 503.
    """

    def __init__(self, name: str, *, port: int, workers: int, waiting: int = 64) -> None:
        self.name = name
        self._options = _options(name, port, workers, waiting)
        self._routes: dict[tuple[str, str], Handler] = {}
        self._serving = Serving(workers=self._options.workers, waiting=self._options.waiting)
        self._pools = PriorityPools(name, self._serving.pools())
        self._durations = RequestDurations(name)
        self._failed = self._abandoned = 0
        self._step = Step()
        self._live = LiveSettings(name, unknown="keep")
        self._live.section(name, self._serving, self._serve_as)
        self._front: Front | None = None

    def _is_at(self, step: Step) -> None:
        self._step = step

    def _serve_as(self, serving: Serving) -> None:
        self._serving = serving
        self._pools.configure(serving.pools())

    def store(self, schema: str) -> Store:
        """This service's own database, with its tables."""
        folder = Path(self._options.data)
        folder.mkdir(parents=True, exist_ok=True)
        return Store(folder / f"{self.name}.db", schema)

    def dependency(
        self, name: str, default_port: int, instead: Callable[[dict[str, object]], Answer] | None = None
    ) -> Dependency:
        """Another service: where it is (given as `--to NAME=URL`, else on its own default port), and how it is called."""
        given: dict[str, str] = dict(each.split("=", 1) for each in self._options.to)
        url = given.get(name, f"http://127.0.0.1:{default_port}").rstrip("/")
        return Dependency(name, url, self._live, instead)

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
        self._live.section("shop", self._step, self._is_at)  # the last to be told: when it is, all are
        if self._options.settings:
            watch(self._options.settings, self._live, period=0.1)
        self._front = Front(self._listener(), self._at_once, self._hand_on)
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
        """What needs no worker."""
        if request.method == "GET" and request.path == "/health":
            return Answer(200, {"service": self.name, "pid": os.getpid(), "step": self._step.step})
        if request.method == "GET" and request.path == "/workers":
            return Answer(200, {"service": self.name, **self._workers()})
        if request.method == "GET" and request.path == "/metrics":
            kind, text = exposition(request.headers.get("accept", ""))
            return Answer(200, text=text.decode(), kind=kind)
        if (request.method, request.path) not in self._routes:
            return Answer(404, {"error": f"{self.name} has no {request.method} {request.path}"})
        return None

    def _workers(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for sample in self._pools.samples():
            name = dict(sample.labels).get("outcome") or sample.name.removeprefix("resilience_pool_")
            counts[name] = counts.get(name, 0) + int(sample.value)
        return {
            "total": self._serving.workers, "busy": counts["busy"], "queue": counts["waiting"],
            "served": counts["served"] + counts["late"] - self._abandoned, "failed": self._failed,
            "refused": counts["shed"], "abandoned": self._abandoned,
        }  # fmt: skip

    def _hand_on(self, connection: Connection, request: Request) -> None:
        """Have a worker handle it, or be turned away."""
        arrived = time.monotonic()

        def turn_away(error: Overloaded) -> None:
            answer = Answer(503, {"error": str(error)}, headers={"Retry-After": retry_after_header(error)})
            self._answer(connection, request, answer, arrived)

        priority = request.headers.get("x-priority") if self._serving.kept_for_high else None
        self._pools.submit(lambda: self._work(connection, request, arrived), priority=priority, shed=turn_away)

    def _work(self, connection: Connection, request: Request, arrived: float) -> None:
        assert self._front is not None  # noqa: S101 - nothing is handed on before it runs
        if connection.gone():  # nobody waits for this answer any more
            self._abandoned += 1
            self._front.give_back(connection, usable=False)
            return
        left = deadline.from_headers(request.headers)
        if left is None:
            answer = self._handle(request)
        else:
            with deadline.within(left - (time.monotonic() - arrived)):
                answer = self._handle(request)
        self._failed += answer.status >= SERVER_ERROR
        self._answer(connection, request, answer, arrived)

    def _answer(self, connection: Connection, request: Request, answer: Answer, arrived: float) -> None:
        assert self._front is not None  # noqa: S101 - as above
        self._durations.observe(
            request.path, answer.status, time.monotonic() - arrived, traceparent=request.headers.get("traceparent", "")
        )
        self._front.give_back(connection, usable=connection.answer(answer))

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
    parser.add_argument("--settings", help="a file of settings, followed while it serves (default: none)")
    parser.add_argument("--to", action="append", default=[], metavar="NAME=URL", help="where another service is")
    parser.add_argument("--parent", type=int, help="end when the process with this pid, the parent, ends")
    return parser.parse_args()


def _end_with(parent: int) -> None:
    """Be killed by the kernel as soon as the parent ends, however it ends, even while this process is stopped."""
    import ctypes  # only needed under a supervisor

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)
