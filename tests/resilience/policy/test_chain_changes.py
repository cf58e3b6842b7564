"""Links come and go, by code and by file, while calls are under way."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience.breaker import BreakerSettings
from squall_resilience.bulkhead import BulkheadSettings
from squall_resilience.errors import BreakerOpen, BulkheadFull, SettingsError
from squall_resilience.events import Event, SettingsChanged
from squall_resilience.fallback import FallbackSettings
from squall_resilience.metrics import MetricNameClash, Registry
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.live import LiveSettings
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.watching import watch
from squall_resilience.rate_limiter import RateLimiterSettings
from squall_resilience.retry import RetrySettings
from squall_resilience.timeout import TimeoutSettings
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from squall_resilience.pattern import Pattern

EVERYTHING = PolicySettings(
    timeout=TimeoutSettings(5),
    breaker=BreakerSettings(),
    bulkhead=BulkheadSettings(),
    rate_limiter=RateLimiterSettings(rate=1_000_000, burst=1_000_000),
    retry=RetrySettings(),
    deadline=TimeoutSettings(10),
    fallback=FallbackSettings(),
)


def policy_of(*links: Pattern, listeners: Iterable[Callable[[Event], None]] = (), **parts: Any) -> Policy:
    return Policy("inventory", PolicySettings(**parts), links=links, listeners=listeners, registry=None)


def kinds(policy: Policy) -> list[str]:
    return [link.kind for link in policy.links]


def test_links_come_and_go_without_a_restart() -> None:
    policy = policy_of()

    @policy
    def fails() -> None:
        raise OSError("down")

    for _ in range(3):
        with pytest.raises(OSError, match="down"):
            fails()
    policy.configure(PolicySettings(breaker=BreakerSettings(failures_in_a_row=2)))
    breaker = policy.link("breaker")
    for expected in (OSError, OSError, BreakerOpen):
        with pytest.raises(expected):
            fails()
    policy.configure(PolicySettings())
    assert policy.link("breaker") is None
    with pytest.raises(OSError, match="down"):
        fails()
    policy.configure(PolicySettings(breaker=BreakerSettings(failures_in_a_row=2)))
    assert policy.link("breaker") is breaker
    with pytest.raises(BreakerOpen):
        fails()


def test_calls_under_way_end_in_the_chain_they_began_in() -> None:
    policy = policy_of(bulkhead=BulkheadSettings(limit=1, waiting=0))
    go, began = threading.Event(), threading.Event()

    @policy
    def waits() -> str:
        began.set()
        go.wait(10)
        return "done"

    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(waits()), daemon=True)
    thread.start()
    assert began.wait(10)
    with pytest.raises(BulkheadFull):
        waits()
    policy.configure(PolicySettings())
    began.clear()
    second = threading.Thread(target=lambda: answers.append(waits()), daemon=True)
    second.start()
    assert began.wait(10)
    policy.configure(PolicySettings(bulkhead=BulkheadSettings(limit=1, waiting=0)))
    with pytest.raises(BulkheadFull):  # the first still has the slot: it is the same bulkhead
        waits()
    go.set()
    for each in (thread, second):
        each.join(10)
    assert answers == ["done", "done"]
    assert waits() == "done"


def test_changes_under_load_lose_no_call_and_leak_no_slot() -> None:
    policy = Policy("inventory", EVERYTHING, registry=None)

    @policy
    async def quick(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def main() -> None:
        ended = asyncio.Event()

        async def turn() -> None:
            for settings in [PolicySettings(), EVERYTHING, PolicySettings(bulkhead=BulkheadSettings(limit=50))] * 20:
                policy.configure(settings)
                await asyncio.sleep(0.001)
            ended.set()

        async def calls() -> None:
            number = 0
            while not ended.is_set():
                number += 1
                assert await quick(number) == number

        await asyncio.gather(turn(), *(calls() for _ in range(20)))

    asyncio.run(main())
    policy.configure(EVERYTHING)
    in_use = {each.name: each.value for each in policy.link("bulkhead").samples()}["resilience_bulkhead_in_use"]  # type: ignore[union-attr]
    assert in_use == 0


def test_functions_that_are_gone_are_not_composed_any_more() -> None:
    policy = policy_of(timeout=TimeoutSettings(1))
    before = len(policy._woven)
    for _ in range(100):
        policy(lambda: None)()
    gc.collect()
    assert len(policy._woven) == before


def test_settings_that_a_link_cannot_take_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(timeout=TimeoutSettings(1), bulkhead=BulkheadSettings(limit=3))
    bulkhead: Any = policy.link("bulkhead")

    def refuse(settings: BulkheadSettings) -> None:
        if settings.limit == 9:
            raise RuntimeError("not now")

    monkeypatch.setattr(bulkhead, "configure", refuse)
    with pytest.raises(RuntimeError, match="not now"):
        policy.configure(PolicySettings(timeout=TimeoutSettings(2), bulkhead=BulkheadSettings(limit=9)))
    assert policy.settings.timeout == TimeoutSettings(1)
    assert policy.link("timeout").settings == TimeoutSettings(1)  # type: ignore[union-attr]


def test_a_change_is_told_and_counted() -> None:
    registry = Registry()
    told: list[Event] = []
    policy = Policy("inventory", PolicySettings(timeout=TimeoutSettings(1)), listeners=[told.append], registry=registry)
    before = time.time()
    policy.configure(PolicySettings(timeout=TimeoutSettings(2), breaker=BreakerSettings()), "shop.yaml")
    policy.configure(PolicySettings(timeout=TimeoutSettings(2), breaker=BreakerSettings()), "shop.yaml")
    changes = [event for event in told if isinstance(event, SettingsChanged)]
    assert [(event.source, event.changed) for event in changes] == [("shop.yaml", ("timeout.limit", "breaker"))]
    samples = {sample.name: sample for sample in registry.samples()}
    assert samples["resilience_settings_generation"].value == 1
    at = samples["resilience_settings_changed_timestamp_seconds"]
    assert at.labels == (("dependency", "inventory"), ("source", "shop.yaml"))
    assert before <= at.value <= time.time()


def test_a_link_that_is_off_has_no_numbers() -> None:
    registry = Registry()
    policy = Policy("inventory", PolicySettings(breaker=BreakerSettings(forced="open")), registry=registry)
    assert "resilience_breaker_state" in registry.render()
    policy.configure(PolicySettings())
    assert "resilience_breaker_state" not in registry.render()
    policy.configure(PolicySettings(breaker=BreakerSettings()))
    assert "resilience_breaker_state" in registry.render()


def test_a_dependency_has_one_policy() -> None:
    registry = Registry()
    first = Policy("inventory", registry=registry)
    with pytest.raises(MetricNameClash):
        Policy("inventory", registry=registry)
    assert first.dependency == "inventory"


def test_a_part_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="TimeoutSettings, or None for off"):
        PolicySettings(timeout=RetrySettings())  # type: ignore[arg-type]


def test_settings_are_read_from_a_mapping() -> None:
    settings, problems = PolicySettings.read({"timeout": {"limit": "250ms"}, "retry": True, "breaker": None})
    assert problems == []
    assert settings == PolicySettings(timeout=TimeoutSettings(0.25), retry=RetrySettings())
    settings, problems = PolicySettings.read(
        {"timeout": {"limit": "soon"}, "retry": 3, "brkr": {}}, "dependencies.inventory"
    )
    assert settings is None
    assert sorted(problem.path for problem in problems) == [
        "dependencies.inventory.brkr", "dependencies.inventory.retry", "dependencies.inventory.timeout.limit",
    ]  # fmt: skip


def test_a_file_switches_links_on_and_off_while_calls_go_on(tmp_path: Path) -> None:
    """The whole way: a watched file, a policy, a decorated function."""
    policy = policy_of(timeout=TimeoutSettings(5))
    live = LiveSettings("shop", registry=None)
    live.add(policy)
    path = tmp_path / "shop.yaml"

    @policy
    def fails() -> None:
        raise OSError("down")

    path.write_text("dependencies: {inventory: {breaker: {failures_in_a_row: 1}}}\n")
    with watch(path, live, period=0.02) as watcher:
        assert policy.source == str(path)
        assert policy.settings == PolicySettings(
            timeout=TimeoutSettings(5), breaker=BreakerSettings(failures_in_a_row=1)
        )
        with pytest.raises(OSError, match="down"):
            fails()
        with pytest.raises(BreakerOpen):
            fails()
        path.write_text("dependencies: {inventory: {breaker: false, timeout: {limit: -1s}}}\n")
        wait_for(lambda: "timeout.limit" in watcher.problem, "the wrong file is refused")
        with pytest.raises(BreakerOpen):
            fails()
        path.write_text("dependencies: {inventory: {breaker: false, bulkhead: true}}\n")
        wait_for(lambda: kinds(policy) == ["timeout", "bulkhead"], "the right one is in force")
        with pytest.raises(OSError, match="down"):
            fails()
        path.write_text("{}\n")
        wait_for(lambda: policy.settings == PolicySettings(timeout=TimeoutSettings(5)), "the code's own are back")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # a fork is what it is about
def test_a_child_forked_in_the_middle_of_a_change_can_change_settings_too() -> None:
    policy = policy_of(timeout=TimeoutSettings(1))
    live = LiveSettings("shop", registry=None)
    live.add(policy)
    with policy._lock, live._lock:
        forked = threading.Thread(target=lambda: codes.append(_in_a_child(live, policy)), daemon=True)
        codes: list[int] = []
        forked.start()
        forked.join(20)
    assert codes == [0]


def _in_a_child(live: LiveSettings, policy: Policy) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(10)
            live.apply({"dependencies": {"inventory": {"timeout": {"limit": 7}}}})
            code = 0 if policy.settings.timeout == TimeoutSettings(7) else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
