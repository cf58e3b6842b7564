"""The shop: it sells, its books add up, and a stalled inventory takes the workers of everything before it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from squall.errors import SquallError
from squall.shop import SERVICES, Books, Shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 2.0
"""An order has failed when it has no 2xx this long after its intended send time, in seconds."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as running:
        yield running


@pytest.fixture(scope="module")
def shared_shop() -> Iterator[Shop]:
    """One shop for the tests that leave no trace in it."""
    with Shop() as running:
        yield running


def post(url: str, body: bytes, timeout: float = 10.0) -> tuple[int, dict[str, object]]:
    host, _, port = url.removeprefix("http://").partition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=timeout)) as connection:
        connection.request("POST", "/orders", body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def order(shop: Shop, sku: str = "a1", timeout: float = 10.0) -> tuple[int, dict[str, object]]:
    return post(shop.urls["gateway"], json.dumps({"sku": sku}).encode(), timeout)


def wait_for(condition: Callable[[], bool], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.02)


def idle(shop: Shop) -> bool:
    pools = [shop.pool(name) for name in SERVICES]
    return all(pool is not None and pool.busy == pool.queue == 0 for pool in pools)


def exhausted(shop: Shop, service: str) -> bool:
    pool = shop.pool(service)
    return pool is not None and pool.exhausted


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_order_is_paid_reserved_and_told(shop: Shop) -> None:
    status, body = order(shop)
    assert (status, body) == (201, {"order": 1, "sku": "a1", "paid": 1999})
    books = shop.books()
    assert (books.orders, books.paid, books.reserved, books.taken) == ({"confirmed": 1}, {1}, {1}, 1)
    assert [pool.served if (pool := shop.pool(name)) else None for name in SERVICES] == [1] * 5


def test_what_is_unknown_or_sold_out_is_refused_and_not_booked(shop: Shop) -> None:
    assert order(shop, "nothing")[0] == 404
    assert [order(shop, "c3")[0] for _ in range(4)] == [201, 201, 201, 409]
    books = shop.books()
    assert books.orders == {"failed": 2, "confirmed": 3}
    assert (books.taken, books.complaints()) == (3, [])


def test_the_last_items_are_sold_once_each_to_many_at_once(shop: Shop) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: order(shop, "c3")[0], range(20)))
    assert sorted(statuses) == [201] * 3 + [409] * 17
    assert shop.books().complaints() == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /orders HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1]", 400),
        (b"POST /orders HTTP/1.1\r\nContent-Length: 2\r\n\r\n{x", 400),
        (b"POST /orders HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /orders HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"rubbish\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
    ],
)
def test_bad_requests_get_an_answer_and_do_no_harm(shared_shop: Shop, sent: bytes, status: int) -> None:
    host, _, port = shared_shop.urls["gateway"].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(sent)
        assert sock.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
    assert order(shared_shop)[0] == 201


def test_connections_are_kept_and_pipelined_requests_answered_in_order(shop: Shop) -> None:
    host, _, port = shop.urls["gateway"].removeprefix("http://").partition(":")
    one = b'POST /orders HTTP/1.1\r\nContent-Length: 13\r\n\r\n{"sku": "a1"}'
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(one * 3 + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := sock.recv(65_536):
            received += chunk
    assert [int(part.split(b",")[0]) for part in received.split(b'"order": ')[1:]] == [1, 2, 3]
    assert received.count(b"HTTP/1.1 20") == 4


def test_a_service_that_cannot_be_reached_is_a_502_and_the_order_fails() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Shop(inventory_url=f"http://127.0.0.1:{unused.getsockname()[1]}") as shop:
            assert order(shop)[0] == 502
            wait_for(lambda: shop.books().orders == {"failed": 1})  # as soon as it is settled with payment
            assert shop.books().errands == 1, "inventory will be told, once it can be reached, that nothing is reserved"


class SlowRoute(threading.Thread):
    """A route to a service on which every connection's first answer waits for `held` to be let go."""

    def __init__(self, upstream: str) -> None:
        super().__init__(daemon=True)
        self.upstream, self.held, self.connections = upstream.removeprefix("http://").split(":"), threading.Event(), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection((self.upstream[0], int(self.upstream[1]))) as service:
            asking = threading.Thread(target=self._pump, args=(client, service), daemon=True)
            asking.start()
            self.held.wait(30)
            self._pump(service, client)
            client.shutdown(socket.SHUT_RDWR)
            asking.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                sink.sendall(chunk)


def test_a_slow_route_to_inventory_is_felt_before_it_and_every_order_arrives_in_the_end() -> None:
    shop = Shop()
    route = SlowRoute(shop.urls["inventory"])
    shop.inventory_url = route.url
    with shop, ThreadPoolExecutor(20) as pool:
        route.start()
        orders = [pool.submit(order, shop) for _ in range(20)]
        wait_for(lambda: exhausted(shop, "payment"))
        route.held.set()
        assert [each.result()[0] for each in orders] == [201] * 20
        assert route.connections == 20
        assert shop.books().complaints() == []
    route.listener.close()


def test_a_shop_that_does_not_start_says_why_and_leaves_nothing() -> None:
    shop = Shop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        shop._sockets["payment"].connect(other.getsockname())  # a socket that cannot listen any more
        with pytest.raises(SquallError, match="shop-payment"):
            shop.start()
    assert not shop.folder.exists()


def test_nothing_is_left_behind(shop: Shop) -> None:
    pids, folder = dict(shop.pids), shop.folder
    os.kill(pids["inventory"], signal.SIGSTOP)
    shop.stop()
    assert not folder.exists()
    assert [name for name, pid in pids.items() if alive(pid)] == []
    shop.stop()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"taken": 3}, "3 items were taken from the stock for 2 reservations"),
        ({"reserved": frozenset({1}), "taken": 1}, "1 orders are either paid or reserved, not both, the first is 2"),
        ({"confirmed": frozenset({1, 2, 3})}, "1 confirmed orders are not paid, the first is 3"),
        ({"confirmed": frozenset({1})}, "1 orders are paid but not confirmed, the first is 2"),
        ({"orders": {"confirmed": 2, "open": 1}}, "1 orders are still open"),
        ({}, ""),
    ],
)
def test_books_that_do_not_add_up_are_complained_of(wrong: dict[str, object], said: str) -> None:
    both = frozenset({1, 2})
    sound: dict[str, object] = {
        "orders": {"confirmed": 2}, "confirmed": both, "paid": both, "reserved": both, "taken": 2,
    }  # fmt: skip
    assert "; ".join(Books(**{**sound, **wrong}).complaints()) == said  # type: ignore[arg-type]


def test_a_supervisor_that_does_not_end_is_killed_and_its_services_with_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squall.shop.STOP_SECONDS_MAX", 0.2)
    assert shop._supervisor is not None
    os.kill(shop._supervisor.pid, signal.SIGSTOP)
    shop.stop()
    wait_for(lambda: not any(alive(pid) for pid in shop.pids.values()))
    assert not shop.folder.exists()


OWNER = """
import sys
from squall.shop import Shop
shop = Shop()
shop.start()
print(*shop.pids.values(), shop._supervisor.pid, shop.folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("victim", ["owner", "supervisor"])
def test_the_shop_dies_with_whoever_holds_it_even_while_stopped(victim: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        *pids, folder = owner.stdout.readline().split()
        os.kill(int(pids[3]), signal.SIGSTOP)  # the inventory
        os.kill(owner.pid if victim == "owner" else int(pids[5]), signal.SIGKILL)
        wait_for(lambda: not any(alive(int(pid)) for pid in pids))
        if victim == "owner":
            wait_for(lambda: not Path(folder).exists())
        owner.kill()
    with contextlib.suppress(FileNotFoundError):
        __import__("shutil").rmtree(folder)


@dataclass
class OpenLoop:
    """Orders at a fixed rate, each in its own thread, whatever became of those before."""

    shop: Shop
    rate: float = 50.0
    outcomes: list[tuple[float, bool, float, int | None]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def _one(self, intended: float) -> None:
        number = None
        try:
            left = PATIENCE - (time.monotonic() - intended)
            status, body = order(self.shop, timeout=max(left, 0.001))
            if status == 201:
                number = int(str(body["order"]))
        except (OSError, http.client.HTTPException):
            status = 0
        took = time.monotonic() - intended
        self.outcomes.append((intended, status == 201 and took <= PATIENCE, took, number))

    def _run(self) -> None:
        begin, count = time.monotonic(), 0
        while not self._stop.is_set():
            intended = begin + count / self.rate
            self._stop.wait(max(0.0, intended - time.monotonic()))
            thread = threading.Thread(target=self._one, args=(intended,))
            thread.start()
            self._threads.append(thread)
            count += 1

    def __enter__(self) -> Self:
        self._pacer = threading.Thread(target=self._run)
        self._pacer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pacer.join()
        for thread in self._threads:
            thread.join()

    def share_failed(self, since: float, until: float) -> float:
        within = [sound for intended, sound, _, _ in self.outcomes if since <= intended < until]
        return within.count(False) / len(within)

    def p95(self, until: float) -> float:
        took = sorted(took for intended, sound, took, _ in self.outcomes if intended < until and sound)
        return took[int(len(took) * 0.95)]


@pytest.mark.slow
def test_a_stalled_inventory_takes_everybody_s_workers_and_gives_them_back(shop: Shop) -> None:
    chain, full_at = ("payment", "order", "gateway"), {}
    with OpenLoop(shop) as load:
        wait_for(lambda: len(load.outcomes) >= 150)
        stalled = time.monotonic()
        os.kill(shop.pids["inventory"], signal.SIGSTOP)
        for service in chain:
            wait_for(lambda service=service: exhausted(shop, service))  # type: ignore[misc]
            full_at[service] = time.monotonic() - stalled
        assert shop.pool("notification") is not None
        assert shop.pool("inventory") is None
        wait_for(lambda: time.monotonic() - stalled >= 8.0)
        os.kill(shop.pids["inventory"], signal.SIGCONT)
        resumed = time.monotonic()
        wait_for(lambda: time.monotonic() - resumed >= 5.0)
        ended = time.monotonic()
    wait_for(lambda: idle(shop))

    failed = sorted(intended for intended, sound, _, _ in load.outcomes if not sound)
    healed = max(failed) - resumed
    figures = f"full after {full_at}, failed {load.share_failed(stalled, resumed):.1%}, healed after {healed:.2f} s"
    sys.stdout.write(figures + f", healthy p95 {load.p95(stalled - 0.5) * 1000:.1f} ms\n")

    assert load.share_failed(0, stalled - PATIENCE) == 0
    assert load.share_failed(stalled, resumed) >= 0.9
    assert healed < 3.0
    assert load.share_failed(resumed + 3.0, ended) == 0
    assert list(full_at.values()) == sorted(full_at.values())

    books = shop.books()
    answered = [number for _, _, _, number in load.outcomes if number is not None]
    assert books.complaints() == []
    assert len(answered) == len(set(answered))
    assert set(answered) <= books.confirmed
    assert sum(books.orders.values()) <= len(load.outcomes)


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_can_be_run_by_hand_and_is_found_by_its_name(service: str, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "demo" / "shop" / f"shop-{service}"
    command = [str(script), "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name, _, url = process.stdout.readline().strip().partition(": ")
        assert name == f"shop-{service}"
        wait_for(lambda: answers(int(url.rpartition(":")[2])))
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[1] == str(script).encode()
        process.terminate()
    assert process.returncode == -signal.SIGTERM


def free_ports(count: int) -> list[int]:
    """Free ports below those that the kernel hands out, so that nobody gets them in the meantime by chance."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            found.append(tried.getsockname()[1])
    return found


SHOP = [sys.executable, str(Path(__file__).parents[2] / "demo" / "shop")]


def test_the_whole_shop_can_be_run_by_hand_until_ctrl_c() -> None:
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    options = [text for name, port in ports.items() for text in ("--port", f"{name}={port}")]
    with subprocess.Popen([*SHOP, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert f"http://127.0.0.1:{ports['gateway']}/orders" in process.stdout.readline()
        assert post(found["urls"]["gateway"], b'{"sku": "a1"}')[0] == 201
        os.kill(process.pid, signal.SIGINT)
    assert process.returncode == 0
    assert not any(alive(pid) for pid in found["pids"].values())
    assert not Path(found["folder"]).exists()


def test_a_taken_port_is_said_and_whoever_has_it_is_left_alone(shop: Shop) -> None:
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    ports["order"] = int(shop.urls["order"].rpartition(":")[2])
    options = [text for name, port in ports.items() for text in ("--port", f"{name}={port}")]
    done = subprocess.run([*SHOP, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"shop-order: port {ports['order']}: Address already in use" in done.stderr
    assert order(shop)[0] == 201


@pytest.mark.parametrize("wrong", ["gateway", "cellar=8080", "=1"])
def test_a_wrong_option_says_what_is_allowed(wrong: str) -> None:
    done = subprocess.run([*SHOP, "--port", wrong], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "NAME=VALUE with one of gateway, order, payment, inventory, notification" in done.stderr


def answers(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
