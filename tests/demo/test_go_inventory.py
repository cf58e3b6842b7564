"""The shop with the inventory in Go: it sells, its books add up, and it can be stalled as the one in Python."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.errors import SquallError
from squall.shop import SERVICES, Shop
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[2] / "demo" / "shop" / "go"
NEEDS_GO = "needs Go 1.21 or newer: put `go` on PATH, or apt-get install golang-go"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    if shutil.which("go") is None:
        pytest.skip(NEEDS_GO)
    monkeypatch.setenv("GOPROXY", "off")  # it needs the standard library only
    with Shop(go_inventory=True) as running:
        yield running


def post(url: str, path: str, body: dict[str, object], timeout: float = 10.0) -> tuple[int, dict[str, object]]:
    address = url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=timeout)) as connection:
        connection.request("POST", path, json.dumps(body).encode())
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def order(shop: Shop, sku: str = "a1", timeout: float = 10.0) -> tuple[int, dict[str, object]]:
    return post(shop.urls["gateway"], "/orders", {"sku": sku}, timeout)


def test_orders_flow_and_the_books_add_up(shop: Shop) -> None:
    assert Path(f"/proc/{shop.pids['inventory']}/comm").read_text() == "shop-inventory\n"
    assert order(shop) == (201, {"order": 1, "sku": "a1", "paid": 1999})
    assert order(shop, "nothing")[0] == 404
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: order(shop, "c3")[0], range(20)))
    assert sorted(statuses) == [201] * 3 + [409] * 17
    wait_for(lambda: shop.books().complaints() == [], "the books add up")
    books = shop.books()
    assert (len(books.reserved), books.taken, len(books.confirmed)) == (4, 4, 4)
    found = shop.pool("inventory")
    assert found is not None
    assert (found.total, found.busy, found.failed, found.refused) == (16, 0, 0, 0)
    assert found.served >= 22


def test_what_is_given_up_is_back_and_stays_given_up(shop: Shop) -> None:
    inventory = shop.urls["inventory"]
    assert post(inventory, "/reservations", {"order": 900, "sku": "c3"}) == (201, {"price": 99})
    assert post(inventory, "/reservations", {"order": 900, "sku": "c3"}) == (201, {"price": 99})
    assert shop.books().taken == 1
    for _ in range(2):
        assert post(inventory, "/reservations/release", {"order": 900}) == (200, {"order": 900})
    assert post(inventory, "/reservations", {"order": 900, "sku": "c3"})[0] == 409
    assert (shop.books().taken, shop.books().reserved) == (0, frozenset())
    assert post(inventory, "/reservations", {"sku": "c3"})[0] == 400
    assert post(inventory, "/nothing", {})[0] == 404


def test_the_settings_file_is_followed(shop: Shop) -> None:
    shop.apply({"shop": {"step": "smaller"}, "inventory": {"workers": 3, "waiting": 5}})
    found = shop.pool("inventory")
    assert found is not None
    assert found.total == 3
    shop.apply({"shop": {"step": "bare"}})
    found = shop.pool("inventory")
    assert found is not None
    assert found.total == 16


def test_it_stalls_the_shop_when_it_stands_still_and_gives_it_back(shop: Shop) -> None:
    os.kill(shop.pids["inventory"], signal.SIGSTOP)
    assert shop.pool("inventory") is None
    with ThreadPoolExecutor(64) as customers:
        waiting = [customers.submit(order, shop, timeout=60) for _ in range(64)]

        def stuck() -> bool:
            found = shop.pool("payment")
            return found is not None and found.exhausted

        wait_for(stuck, "payment's workers are taken")
        os.kill(shop.pids["inventory"], signal.SIGCONT)
        assert {each.result()[0] for each in waiting} == {201}
    wait_for(lambda: shop.books().complaints() == [], "the books add up")
    assert len(shop.books().reserved) == 64
    pools = [shop.pool(name) for name in SERVICES]
    assert all(found is not None for found in pools)


def test_it_ends_with_the_shop_also_while_it_stands_still(shop: Shop) -> None:
    pid, folder = shop.pids["inventory"], shop.folder
    os.kill(pid, signal.SIGSTOP)
    assert shop._supervisor is not None
    shop._supervisor.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the kernel ended it")
    shop.stop()
    assert not folder.exists()


def test_without_go_it_is_said_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    shop = Shop(go_inventory=True)
    with pytest.raises(SquallError, match=r"needs Go 1\.21"):
        shop.start()
    assert not shop.folder.exists()


def test_its_own_tests_pass() -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip(NEEDS_GO)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    for command in (["vet", "."], ["test", "-count=1", "."]):
        begun = time.monotonic()
        done = subprocess.run([go, *command], cwd=SOURCES, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}{done.stderr} after {time.monotonic() - begun:.0f} s"
