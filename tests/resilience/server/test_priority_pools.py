"""Priority pools as a plain threaded server uses them: real threads, nothing but the public surface."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from squall_resilience.errors import Overloaded, SettingsError
from squall_resilience.metrics import Registry
from squall_resilience.server.pools import PoolSettings, PoolsSettings, PriorityPools, retry_after_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall_resilience.events import Event


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def settings(high: int = 2, default: int = 2, *, waiting: int = 4, sla: float = 30.0, **more: object) -> PoolsSettings:
    pools = {"high": PoolSettings(high, sla, waiting), "default": PoolSettings(default, sla, waiting)}
    return PoolsSettings(pools, **more)  # type: ignore[arg-type]


def made(given: PoolsSettings | None = None, **more: object) -> PriorityPools:
    return PriorityPools("shop", given or settings(), registry=None, **more)  # type: ignore[arg-type]


def numbers(pools: PriorityPools, name: str, pool: str) -> dict[str, float]:
    return {
        each.labels[-1][1] if len(each.labels) > 2 else "": each.value
        for each in pools.samples()
        if each.name == f"resilience_pool_{name}" and dict(each.labels)["pool"] == pool
    }


class Desk:
    """Jobs that stay until they are let go."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.ran: list[str] = []
        self.refused: list[Overloaded] = []
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def job(self, name: str) -> Callable[[], None]:
        def work() -> None:
            with self._lock:
                self.running += 1
                self.most = max(self.most, self.running)
            assert self.open.wait(20)
            with self._lock:
                self.running -= 1
                self.ran.append(name)

        return work


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_job_runs_in_a_thread_of_its_own_and_is_counted() -> None:
    pools, where = made(), []
    ticket = pools.submit(lambda: where.append(threading.current_thread()), priority="High")
    until(lambda: ticket.state == "done")
    assert (ticket.pool, where[0] is threading.current_thread()) == ("high", False)
    assert numbers(pools, "requests_total", "high") == {"served": 1, "shed": 0, "late": 0}
    pools.close()


@pytest.mark.parametrize("priority", [None, "", "urgent", "default", "\x00"])
def test_who_says_no_priority_or_an_unknown_one_goes_to_the_default_pool(priority: str | None) -> None:
    pools = made()
    assert pools.submit(lambda: None, priority=priority).pool == "default"
    pools.close()


def test_a_full_default_pool_leaves_the_high_one_free(desk: Desk) -> None:
    pools = made()
    for number in range(6):
        pools.submit(desk.job(f"default-{number}"))
    with pytest.raises(Overloaded, match="queue is full") as refused:
        pools.submit(desk.job("one too many"))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 0
    done = threading.Event()
    pools.submit(done.set, priority="high")
    assert done.wait(10)
    desk.open.set()
    until(lambda: len(desk.ran) == 6)
    assert desk.most == 2
    assert numbers(pools, "requests_total", "default")["shed"] == 1
    pools.close()


def test_those_who_wait_run_in_order_of_arrival() -> None:
    pools, order, first = made(settings(default=1, waiting=50)), [], threading.Event()
    pools.submit(lambda: first.wait(10))
    tickets = [pools.submit(lambda number=number: order.append(number)) for number in range(40)]
    first.set()
    until(lambda: tickets[-1].state == "done")
    assert order == list(range(40))
    pools.close()


def test_who_waited_longer_than_the_pools_time_is_shed_before_a_worker_is_free(desk: Desk) -> None:
    pools = made(settings(default=1, sla=0.05))
    pools.submit(desk.job("long"))
    waits = pools.submit(desk.job("never"), shed=desk.refused.append)
    until(lambda: waits.state == "shed")  # while the only worker is still stuck
    until(lambda: len(desk.refused) == 1)
    assert "waited longer" in str(desk.refused[0])
    desk.open.set()
    until(lambda: numbers(pools, "requests_total", "default") == {"served": 0, "shed": 1, "late": 1})
    assert desk.ran == ["long"]
    pools.close()


def test_growing_starts_who_waits_and_shrinking_lets_the_running_ones_finish(desk: Desk) -> None:
    pools = made(settings(default=1, waiting=10))
    tickets = [pools.submit(desk.job(str(number))) for number in range(6)]
    assert [each.state for each in tickets] == ["started"] + ["waiting"] * 5
    pools.configure(settings(default=4, waiting=10))
    assert [each.state for each in tickets] == ["started"] * 4 + ["waiting"] * 2
    until(lambda: desk.running == 4)
    pools.configure(settings(default=1, waiting=10))
    assert (numbers(pools, "busy", "default"), numbers(pools, "workers", "default")) == ({"": 4}, {"": 1})
    desk.open.set()
    until(lambda: all(each.state == "done" for each in tickets))
    assert sorted(desk.ran) == [str(number) for number in range(6)]
    assert numbers(pools, "busy", "default") == {"": 0}
    pools.close()


def test_other_pools_are_refused_and_nothing_changes() -> None:
    pools = made()
    with pytest.raises(SettingsError, match="resized live"):
        pools.configure(PoolsSettings({"default": PoolSettings()}))
    assert list(pools.settings.pools) == ["high", "default"]
    pools.close()


def test_a_cancelled_ticket_gives_its_place_to_the_next_and_nothing_is_called(desk: Desk) -> None:
    pools = made(settings(default=1, waiting=1))
    pools.submit(desk.job("long"))
    waits = pools.submit(desk.job("never"), shed=desk.refused.append)
    assert waits.cancel()
    assert not waits.cancel()
    again = pools.submit(desk.job("again"))
    desk.open.set()
    until(lambda: again.state == "done")
    assert not again.cancel()
    assert (desk.ran, desk.refused, waits.state) == (["long", "again"], [], "left")
    pools.close()


def test_a_total_over_all_pools_is_kept_and_the_highest_priority_goes_first(desk: Desk) -> None:
    pools, order = made(settings(4, 4, waiting=10, total=1)), []
    first = pools.submit(desk.job("first"))
    low = [pools.submit(lambda: order.append("low")) for _ in range(3)]
    high = [pools.submit(lambda: order.append("high"), priority="high") for _ in range(3)]
    assert {each.state for each in low + high} == {"waiting"}
    desk.open.set()
    until(lambda: all(each.state == "done" for each in (first, *low, *high)))
    assert order == ["high"] * 3 + ["low"] * 3
    pools.close()


def test_a_job_that_raises_and_a_refusal_that_raises_harm_nobody(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    pools = made(settings(default=1, waiting=0))

    def fails() -> None:
        raise ValueError("of the service")

    def cannot(error: Overloaded) -> None:
        raise ValueError(str(error))

    done = pools.submit(fails)
    until(lambda: done.state == "done")
    pools.submit(desk.job("stays"))
    assert pools.submit(fails, shed=cannot).state == "shed"
    desk.open.set()
    until(lambda: desk.ran == ["stays"])
    assert "of the service" in caplog.text
    assert "`shed` failed" in caplog.text
    pools.close()


def test_a_thread_that_is_ended_by_its_job_takes_no_slot_along(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = made(settings(default=1))
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    desk.open.set()

    def ends() -> None:
        raise SystemExit

    tickets = [pools.submit(ends), *(pools.submit(desk.job(str(number))) for number in range(3))]
    until(lambda: all(each.state == "done" for each in tickets))
    until(lambda: [each.exc_type for each in told] == [SystemExit])
    assert desk.ran == ["0", "1", "2"]
    assert numbers(pools, "busy", "default") == {"": 0}
    pools.close()


def test_closing_sheds_who_waits_and_lets_nobody_in(desk: Desk) -> None:
    pools = made(settings(default=1))
    runs = pools.submit(desk.job("runs"))
    waits = pools.submit(desk.job("waits"), shed=desk.refused.append)
    pools.close()
    assert waits.state == "shed"
    with pytest.raises(Overloaded, match="ending"):
        pools.submit(desk.job("late"))
    desk.open.set()
    until(lambda: runs.state == "done")
    assert len(desk.refused) == 1


def test_threads_are_used_again_and_never_more_than_workers() -> None:
    pools, seen = made(settings(default=3, waiting=1000)), set()
    tickets = [pools.submit(lambda: seen.add(threading.get_ident())) for _ in range(500)]
    until(lambda: all(each.state == "done" for each in tickets))
    assert len(seen) <= 4  # one may just be on its way to become idle
    pools.close()


def test_every_job_runs_or_is_refused_exactly_once_under_many_threads() -> None:
    pools = made(settings(2, 3, waiting=20, sla=0.02))
    outcomes: list[tuple[int, str]] = []

    def comes(base: int) -> None:
        for number in range(base, base + 200):
            pools.submit(
                lambda number=number: outcomes.append((number, "ran")),
                priority=("high", "default")[number % 2],
                shed=lambda _, number=number: outcomes.append((number, "shed")),
            )

    threads = [threading.Thread(target=comes, args=(base,)) for base in range(0, 1600, 200)]
    for each in threads:
        each.start()
    for size in (1, 8, 2, 16, 3) * 4:
        pools.configure(settings(size, size, waiting=20, sla=0.02))
        time.sleep(0.001)
    for each in threads:
        each.join(30)
    until(lambda: len(outcomes) == 1600)
    until(lambda: sum(numbers(pools, "busy", each)[""] for each in ("high", "default")) == 0)
    assert sorted(number for number, _ in outcomes) == list(range(1600))
    counted = [numbers(pools, "requests_total", each) for each in ("high", "default")]
    assert sum(each["shed"] for each in counted) == sum(what == "shed" for _, what in outcomes)
    pools.close()


def test_a_listener_hears_who_was_shed_and_may_use_the_pools_itself(desk: Desk) -> None:
    heard: list[Event] = []
    pools = made(settings(default=1, waiting=0))

    def listener(event: Event) -> None:
        heard.append(event)
        pools.submit(lambda: None, priority="high")
        raise ValueError("a listener's own")

    pools.listeners.add(listener)
    pools.submit(desk.job("stays"))
    assert pools.submit(desk.job("not"), shed=desk.refused.append).state == "shed"
    desk.open.set()
    assert [(each.kind, each.dependency) for each in heard] == [("pool", "shop")]
    pools.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_fork_begins_with_empty_pools_and_a_free_lock(desk: Desk) -> None:
    pools = made(settings(default=1, waiting=1))
    pools.submit(desk.job("runs"))
    pools.submit(desk.job("waits"))
    child = os.fork()
    if not child:
        done = threading.Event()
        pools.submit(done.set)
        os._exit(0 if done.wait(10) and numbers(pools, "waiting", "default") == {"": 0} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    desk.open.set()
    until(lambda: desk.ran == ["runs", "waits"])
    pools.close()


def test_pools_that_nobody_uses_any_more_leave_the_registry() -> None:
    registry = Registry()
    pools = PriorityPools("shop", settings(), registry=registry)
    text = registry.render()
    assert 'resilience_pool_workers{dependency="shop",pool="high"} 2' in text
    assert 'resilience_pool_requests_total{dependency="shop",pool="default",outcome="late"} 0' in text
    pools.close()
    del pools
    gc.collect()
    assert "resilience_pool" not in registry.render()


@pytest.mark.parametrize(("seconds", "header"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2")])
def test_retry_after_is_in_whole_seconds_and_never_zero(seconds: float | None, header: str) -> None:
    assert retry_after_header(Overloaded("no", retry_after=seconds)) == header


def test_everything_wrong_with_settings_is_said_at_once_with_its_path() -> None:
    given = {
        "pools": {"high": {"workers": 0, "sla": "fast"}, "No Name": {}, "low": {"wrokers": 3}},
        "header": "X Priority",
        "total": -1,
        "shedding": "yes",
    }
    made_of, problems = PoolsSettings.read(given, "server")
    assert made_of is None
    assert {each.path for each in problems} == {
        "server.pools.high.workers",
        "server.pools.high.sla",
        "server.pools",
        "server.pools.low.wrokers",
        "server.header",
        "server.total",
        "server.shedding",
    }


def test_settings_as_a_file_has_them() -> None:
    given = {"pools": {"high": {"workers": 5, "sla": "100ms"}, "bulk": {"sla": "2s"}}, "default": "bulk"}
    read, problems = PoolsSettings.read(given)
    assert problems == []
    assert read is not None
    assert read.pools == {"high": PoolSettings(5, 0.1), "bulk": PoolSettings(sla=2.0)}
