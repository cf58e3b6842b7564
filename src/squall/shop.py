"""The demonstration shop, started and ended: five services as real processes on free ports, in a folder of their own.

The services themselves are in demo/shop of the repository, and beside this module in an installed Squall.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from squall.errors import SquallError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["SERVICES", "Books", "Pool", "Shop"]

SERVICES = ("gateway", "order", "payment", "inventory", "notification")
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
ASK_SECONDS_MAX = 2.0
APPLY_SECONDS_MAX = 5.0
BUILD_SECONDS_MAX = 300.0
LOG_CHARACTERS_SHOWN = 2_000


@dataclass(frozen=True)
class Pool:
    """A service's workers as they are now, and its counts since the start."""

    service: str
    busy: int
    total: int
    queue: int
    served: int
    failed: int
    refused: int
    abandoned: int

    @property
    def exhausted(self) -> bool:
        """Whether every worker is busy."""
        return self.busy >= self.total


@dataclass(frozen=True)
class Books:
    """What the services' databases say: orders by state, and what was paid, reserved and taken from the stock."""

    orders: dict[str, int]
    confirmed: frozenset[int]
    paid: frozenset[int]
    reserved: frozenset[int]
    taken: int
    errands: int = 0
    """What payment has promised or given up and inventory does not know yet."""

    def complaints(self) -> list[str]:
        """What does not add up, once nothing is under way; empty when all is well."""
        found = []
        if self.taken != len(self.reserved):
            found.append(f"{self.taken} items were taken from the stock for {len(self.reserved)} reservations")
        if unpaid := self.confirmed - self.paid:
            found.append(f"{len(unpaid)} confirmed orders are not paid, the first is {min(unpaid)}")
        if loose := self.paid ^ self.reserved:
            found.append(f"{len(loose)} orders are either paid or reserved, not both, the first is {min(loose)}")
        if unasked := self.paid - self.confirmed:
            found.append(f"{len(unasked)} orders are paid but not confirmed, the first is {min(unasked)}")
        not_settled = {state: self.orders.get(state, 0) for state in ("open", "unsure")}
        found += [f"{count} orders are still {state}" for state, count in not_settled.items() if count]
        if self.errands:
            found.append(f"payment has still {self.errands} things to tell inventory")
        return found


@dataclass
class Shop:
    """The shop as a context manager: inside, it runs and is healthy; afterwards no process and no file of it is left.

    Its ports are known from construction on (`urls`), so that a proxy can be put before inventory and given as
    `inventory_url`. With `go_inventory` inventory is the one written in Go, built at the start. Whatever ends this
    process, SIGKILL too, the shop ends with it. `start` raises SquallError when a service does not come up within 20 s.
    """

    inventory_url: str | None = None
    go_inventory: bool = False
    urls: dict[str, str] = field(init=False)
    pids: dict[str, int] = field(init=False, default_factory=dict)
    folder: Path = field(init=False)
    _log: IO[str] = field(init=False, repr=False)
    _sockets: dict[str, socket.socket] = field(init=False, repr=False)
    _supervisor: subprocess.Popen[str] | None = field(init=False, default=None, repr=False)
    _cleanup: ExitStack = field(init=False, default_factory=ExitStack, repr=False)

    def __post_init__(self) -> None:
        self._sockets = {name: self._cleanup.enter_context(closing(socket.socket())) for name in SERVICES}
        for bound in self._sockets.values():
            bound.bind(("127.0.0.1", 0))
        self.urls = {name: f"http://127.0.0.1:{bound.getsockname()[1]}" for name, bound in self._sockets.items()}

    def start(self) -> None:
        """Start the five services and wait until each answers."""
        self.folder = Path(tempfile.mkdtemp(prefix="squall-shop-"))
        self._cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
        command = [sys.executable, "-E", "-s", "-S", str(_sources()), "--lifeline", "--data", str(self.folder)]
        self._settings.write_text("{}")
        command += ["--settings", str(self._settings)]
        for name, bound in self._sockets.items():
            command += ["--fd", f"{name}={bound.fileno()}"]
        if self.inventory_url is not None:
            command += ["--to", f"inventory={self.inventory_url}"]
        if self.go_inventory:
            command += ["--program", f"inventory={self._build_inventory()}"]
        log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by the stack
        self._log = self._cleanup.enter_context(log)
        self._supervisor = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            pass_fds=[bound.fileno() for bound in self._sockets.values()],
            start_new_session=True,
        )
        for bound in self._sockets.values():
            bound.close()
        self.pids = self._started(self._supervisor)

    def _build_inventory(self) -> Path:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            self.stop()
            raise SquallError("the inventory in Go needs Go 1.21 or newer to be built: put `go` on PATH")
        built = self.folder / "shop-inventory"
        alone = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        done = subprocess.run(
            [go, "build", "-o", str(built), "."], cwd=_sources() / "go", env={**os.environ, **alone}, text=True,
            capture_output=True, timeout=BUILD_SECONDS_MAX, check=False,
        )  # fmt: skip
        if done.returncode:
            self.stop()
            raise SquallError(f"the inventory in Go could not be built:\n{done.stderr[-LOG_CHARACTERS_SHOWN:]}")
        return built

    def _started(self, supervisor: subprocess.Popen[str]) -> dict[str, int]:
        assert supervisor.stdout is not None  # noqa: S101 - it was asked for above
        ready, _, _ = select.select([supervisor.stdout], [], [], START_SECONDS_MAX)
        line = supervisor.stdout.readline() if ready else ""
        if not line:
            self._log.seek(0)
            log = self._log.read()[-LOG_CHARACTERS_SHOWN:]
            self.stop()
            raise SquallError(f"the shop did not start within {START_SECONDS_MAX:g} s; its services say:\n{log}")
        pids: dict[str, int] = json.loads(line)["pids"]
        return pids

    def stop(self) -> None:
        """End all of it and remove its folder; does nothing when that is done."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            try:
                supervisor.communicate(timeout=STOP_SECONDS_MAX)  # the end of its input is what ends it
            except subprocess.TimeoutExpired:
                supervisor.kill()  # its services end with it
                supervisor.communicate()
        self._cleanup.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def apply(self, settings: dict[str, Any]) -> None:
        """Write the settings file that all services follow, and wait until each has taken it; none is restarted.

        `settings["shop"]["step"]` names them; SquallError when a service does not say that name within 5 s.
        """
        written = self._settings.with_suffix(".new")
        written.write_text(json.dumps(settings, indent=2))
        written.replace(self._settings)
        step = settings["shop"]["step"]
        deadline = time.monotonic() + APPLY_SECONDS_MAX
        for name in SERVICES:
            while (self._ask(name, "/health") or {}).get("step") != step:
                if time.monotonic() > deadline:
                    raise SquallError(f"shop-{name} did not take the settings of step {step!r}; see {self._settings}")
                time.sleep(0.02)

    def pool(self, service: str) -> Pool | None:
        """The service's workers now; None when it does not answer within 2 s (it is stalled itself)."""
        answer = self._ask(service, "/workers")
        return Pool(**answer) if answer is not None else None

    def _ask(self, service: str, path: str) -> dict[str, Any] | None:
        host, _, port = self.urls[service].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=ASK_SECONDS_MAX)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        else:
            return answer
        finally:
            connection.close()

    def books(self) -> Books:
        """What the databases say now; look once nothing is under way, for the services write one after the other."""
        states = self._rows("order", "SELECT id, state FROM orders")
        reserved, taken = self._journal() if self.go_inventory else self._stock()
        orders: dict[str, int] = {}
        for _, state in states:
            orders[state] = orders.get(state, 0) + 1
        return Books(
            orders=orders,
            confirmed=frozenset(order for order, state in states if state == "confirmed"),
            paid=frozenset(
                order for (order,) in self._rows("payment", "SELECT order_id FROM payments WHERE state = 'paid'")
            ),
            reserved=reserved,
            taken=taken,
            errands=self._rows("payment", "SELECT COUNT(*) FROM errands")[0][0],
        )

    def _stock(self) -> tuple[frozenset[int], int]:
        """What is reserved, and how many items were taken from the stock."""
        ((taken,),) = self._rows("inventory", "SELECT SUM(initial - left) FROM stock")
        return frozenset(order for (order,) in self._rows("inventory", "SELECT order_id FROM reservations")), taken

    def _journal(self) -> tuple[frozenset[int], int]:
        """The same, as the journal of the inventory in Go says it."""
        reserved: set[int] = set()
        taken: dict[str, int] = {}
        initial: dict[str, int] = {}
        for line in (self.folder / "inventory.journal").read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # it is being written
            entry: dict[str, Any] = json.loads(line)
            if "initial" in entry:
                initial[entry["sku"]] = entry["initial"]
            if "reserve" in entry:
                reserved.add(entry["reserve"])
            reserved.discard(entry.get("release", 0))
            if "left" in entry:
                taken[entry["sku"]] = initial[entry["sku"]] - entry["left"]
        return frozenset(reserved), sum(taken.values())

    def _rows(self, service: str, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.folder / f"{service}.db", timeout=ASK_SECONDS_MAX)) as connection:
            return connection.execute(query).fetchall()


def _sources() -> Path:
    """The folder of the services: in an installed Squall beside this module, else in the repository."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "demo_shop", here.parents[2] / "demo" / "shop"):
        if (folder / "__main__.py").is_file():
            return folder
    raise SquallError(f"the shop is missing: neither {here.parent / 'demo_shop'} nor demo/shop of a checkout is there")
