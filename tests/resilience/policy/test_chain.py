"""A policy: the order is checked, links come and go while calls are under way, and it says what it is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall_resilience.breaker import BreakerSettings, CircuitBreaker
from squall_resilience.bulkhead import Bulkhead, BulkheadSettings
from squall_resilience.errors import BreakerOpen, BulkheadFull, DeadlineExceeded, SettingsError
from squall_resilience.events import Event, SettingsChanged
from squall_resilience.fallback import Fallback, FallbackSettings
from squall_resilience.metrics import MetricNameClash, Registry, Sample
from squall_resilience.pattern import Pattern
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.live import LiveSettings
from squall_resilience.policy.order import ORDER, WrongOrder
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.trace import trace_of
from squall_resilience.policy.watching import watch
from squall_resilience.rate_limiter import RateLimiterSettings
from squall_resilience.retry import Retry, RetrySettings
from squall_resilience.safe import idempotent
from squall_resilience.timeout import Timeout, TimeoutSettings
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from pathlib import Path

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


class Marking(Pattern):
    """A service's own pattern: it says when a call passes."""

    def __init__(self, name: str, passed: list[str]) -> None:
        self.kind = name  # type: ignore[misc]
        super().__init__("inventory", registry=None)
        self.passed = passed

    def wrap_sync(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def marked(*args: Any, **kwargs: Any) -> Any:
            self.passed.append(self.kind)
            return call(*args, **kwargs)

        return marked

    def wrap_async(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        raise NotImplementedError

    def samples(self) -> Iterable[Sample]:
        return ()


def test_links_stand_in_their_order_whatever_the_order_of_the_settings() -> None:
    policy = Policy("inventory", EVERYTHING, registry=None)
    assert kinds(policy) == ["timeout", "breaker", "bulkhead", "rate_limiter", "retry", "deadline", "fallback"]
    assert kinds(policy) == [place.kind for place in ORDER if place.kind in kinds(policy)]


@given(st.permutations([Timeout, CircuitBreaker, Bulkhead, Retry, Fallback]))
def test_any_wrong_order_is_refused_with_the_reason(classes: list[type[Any]]) -> None:
    links = [each("inventory", registry=None) for each in classes]
    right = [Timeout, CircuitBreaker, Bulkhead, Retry, Fallback]
    if classes == right:
        assert kinds(policy_of(*links)) == [each.kind for each in right]
        return
    with pytest.raises(WrongOrder) as refusal:
        policy_of(*links)
    assert any(place.why in str(refusal.value) for place in ORDER)
    assert "stands inside of" in str(refusal.value)


def test_two_links_of_one_kind_are_refused() -> None:
    with pytest.raises(WrongOrder, match="two links are a timeout"):
        policy_of(*(Timeout("inventory", registry=None) for _ in range(2)))


def test_a_link_made_by_hand_is_used_with_its_own_settings() -> None:
    retry = Retry("inventory", RetrySettings(attempts=7), registry=None)
    policy = policy_of(retry, timeout=TimeoutSettings(1))
    assert policy.link("retry") is retry
    assert policy.settings.retry == RetrySettings(attempts=7)
    policy.configure(PolicySettings(retry=RetrySettings(attempts=2)))
    assert retry.settings.attempts == 2
    assert kinds(policy) == ["retry"]


def test_a_services_own_link_stands_where_it_was_put() -> None:
    passed: list[str] = []
    own = Marking("outermost", passed), Marking("between", passed)
    breaker, fallback = CircuitBreaker("inventory", registry=None), Fallback("inventory", preset=1, registry=None)
    policy = policy_of(breaker, own[1], fallback, own[0], timeout=TimeoutSettings(1), retry=RetrySettings())
    assert kinds(policy) == ["timeout", "breaker", "between", "retry", "fallback", "outermost"]
    policy(lambda: None)()
    assert passed == ["outermost", "between"]
    assert "the service's own" in str(policy.explain())


def test_a_decorated_function_is_still_itself() -> None:
    policy = Policy("inventory", EVERYTHING, registry=None)

    @policy
    def left(sku: str, *, exact: bool = False) -> int:
        """How many are left."""
        return len(sku) if exact else 0

    @policy
    async def left_async(sku: str) -> int:
        return len(sku)

    assert left("a1", exact=True) == 2
    assert (left.__name__, left.__doc__) == ("left", "How many are left.")
    assert list(inspect.signature(left).parameters) == ["sku", "exact"]
    assert inspect.iscoroutinefunction(left_async)
    assert asyncio.run(left_async("a1")) == 2


def test_a_function_may_be_called_once() -> None:
    policy = Policy("inventory", EVERYTHING, registry=None)
    calls: list[int] = []

    @idempotent
    def fails(number: int) -> int:
        calls.append(number)
        raise ConnectionResetError

    async def left_async(sku: str) -> int:
        return len(sku)

    assert policy.call(len, "a1") == 2
    assert asyncio.run(policy.call(left_async, "a1")) == 2
    with pytest.raises(ConnectionResetError):
        policy.call(fails, 1)
    assert calls == [1, 1, 1]
    with pytest.raises(ConnectionResetError):
        policy.call(functools.partial(fails, 2))
    assert calls == [1, 1, 1, 2]


def test_generators_are_refused_where_they_cannot_be_taken_back() -> None:
    with pytest.raises(TypeError, match="policy 'inventory' cannot wrap the generator function"):

        @policy_of(timeout=TimeoutSettings(1))
        def items() -> Any:
            yield 1


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


def test_explain_draws_the_chain_as_it_is() -> None:
    policy = policy_of(
        timeout=TimeoutSettings(0.5), breaker=BreakerSettings(failures_in_a_row=1), retry=RetrySettings()
    )

    @policy
    def fails() -> None:
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        fails()
    drawn = str(policy.explain())
    order = [
        drawn.index(word)
        for word in ("caller", "└─ retry", "└─ breaker", "└─ timeout", "└─ transport", "off: fallback")
    ]
    assert order == sorted(order)
    assert "limit 0.5" in drawn
    assert "state open 1" in drawn
    assert "inventory: stopped at transport, reached the caller: OSError: down" in drawn
    as_data = json.loads(json.dumps(policy.explain().as_dict()))
    assert [link["kind"] for link in as_data["links"]] == [place.kind for place in reversed(ORDER)]
    assert [link["kind"] for link in as_data["links"] if link["on"]] == ["retry", "breaker", "timeout"]
    assert all(link["why"] for link in as_data["links"])


def test_the_error_of_a_call_has_its_trace() -> None:
    policy = policy_of(breaker=BreakerSettings(forced="open"))
    with pytest.raises(BreakerOpen) as error:
        policy.call(len, "")
    assert str(trace_of(error.value)).startswith("inventory: stopped at breaker, reached the caller: ")
    assert trace_of(ValueError()) is None


def test_an_error_of_another_policy_came_from_the_transport() -> None:
    inner = Policy("ledger", PolicySettings(breaker=BreakerSettings(forced="open")), registry=None)
    outer = policy_of(breaker=BreakerSettings())
    with pytest.raises(BreakerOpen):
        outer(inner(lambda: None))()
    assert [(trace.origin, trace.stopped_at) for trace in outer.traces] == [("transport", "transport")]
    assert [(trace.origin, trace.stopped_at) for trace in inner.traces] == [("breaker", "breaker")]


def test_steps_of_one_call_are_not_taken_for_anothers() -> None:
    policy = policy_of(retry=RetrySettings(attempts=2, base=0.001, cap=0.002))
    tries = iter([ConnectionRefusedError, None, ValueError])

    @policy
    @idempotent
    def flaky() -> None:
        if (error := next(tries)) is not None:
            raise error

    flaky()
    with pytest.raises(ValueError, match=r"^$"):
        flaky()
    assert [(trace.stopped_at, trace.attempts, len(trace.steps)) for trace in policy.traces] == [
        ("retry", 2, 1),
        ("transport", 1, 0),
    ]


def test_where_calls_stopped_is_a_metric() -> None:
    registry = Registry()
    policy = Policy("inventory", PolicySettings(timeout=TimeoutSettings(0.01)), registry=registry)

    @policy
    async def slow() -> None:
        await asyncio.sleep(5)

    with pytest.raises(DeadlineExceeded):
        asyncio.run(slow())
    assert 'resilience_policy_stopped_total{dependency="inventory",link="timeout",end="caller"} 1' in registry.render()


def test_the_active_span_says_where_the_call_stopped() -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    policy = policy_of(Fallback("inventory", preset=0, registry=None), breaker=BreakerSettings(forced="open"))
    with provider.get_tracer("shop").start_as_current_span("order"):
        assert policy.call(len, "") == 0
    attributes = spans.get_finished_spans()[0].attributes
    assert attributes is not None
    assert attributes["resilience.origin"] == "breaker"
    assert attributes["resilience.stopped_at"] == "fallback"
    assert attributes["resilience.reached_caller"] is False


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


def test_counts_are_exact_under_threads() -> None:
    policy = policy_of()

    @policy
    def fails() -> None:
        raise OSError

    def work() -> None:
        for _ in range(2000):
            with contextlib.suppress(OSError):
                fails()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert policy.journal.counts == {("transport", "caller"): 8000}
