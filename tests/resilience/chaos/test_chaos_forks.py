"""A service that forks its workers, as gunicorn does: each is driven and counts for itself."""

from __future__ import annotations

import os
import struct
import sys
import threading
from typing import TYPE_CHECKING

from squall_resilience.chaos import Chaos, ChaosSettings
from squall_resilience.chaos.decision import Seen
from squall_resilience.metrics import Registry
from tests.resilience.chaos.conftest import wait_for

if TYPE_CHECKING:
    from tests.resilience.chaos.conftest import Driver

SETTINGS = ChaosSettings(service="shop", driven=True)


def asked(chaos: Chaos) -> bool:
    """Whether a request is hit."""
    sources = chaos.sources()
    return bool(sources) and chaos.consider(sources, Seen("GET", "/", lambda _: [])) is not None


def requests_in(driver: Driver, pid: int) -> int:
    found: int = struct.unpack_from("<Q", (driver.folder / f"shop.{pid}.live").read_bytes(), 24)[0]
    return found


def test_a_forked_worker_registers_with_its_first_request(driver: Driver) -> None:
    chaos = Chaos(SETTINGS, registry=None, folder=driver.folder)
    driver.switch_on()
    wait_for(lambda: asked(chaos), "it is not driven")
    before = requests_in(driver, os.getpid())
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            wait_for(lambda: asked(chaos), "the child is not driven")
            os.write(tell, b"%d" % requests_in(driver, os.getpid()))
        finally:
            os._exit(0)
    os.close(tell)
    said = os.read(told, 16)
    os.close(told)
    os.waitpid(child, 0)
    assert int(said) >= 1
    assert requests_in(driver, os.getpid()) == before
    assert sorted(path.name for path in driver.live()) == sorted(f"shop.{pid}.live" for pid in (os.getpid(), child))


def test_two_middlewares_of_one_name_are_one_registration(driver: Driver) -> None:
    registry = Registry()
    first = Chaos(SETTINGS, registry=registry, folder=driver.folder)
    second = Chaos(SETTINGS, registry=registry, folder=driver.folder)
    driver.switch_on()
    wait_for(lambda: asked(first), "it is not driven")
    assert asked(second)
    assert len(driver.live()) == 1
    assert requests_in(driver, os.getpid()) == 2
    assert 'http_chaos_injected_total{service="shop",reason="delay"} 2' in registry.render()


def test_counts_hold_under_threads(driver: Driver) -> None:
    chaos = Chaos(SETTINGS, registry=None, folder=driver.folder)
    driver.switch_on()
    wait_for(lambda: asked(chaos), "it is not driven")
    before, each, count = requests_in(driver, os.getpid()), 200, 8
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=lambda: [asked(chaos) for _ in range(each)]) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert requests_in(driver, os.getpid()) == before + each * count


def test_a_middleware_that_nobody_holds_is_not_there(driver: Driver) -> None:
    chaos = Chaos(SETTINGS, registry=None, folder=driver.folder)
    assert len(driver.live()) == 1
    del chaos
    assert driver.live() == []
