"""A policy says what it is, and where the faults of its calls stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience.breaker import BreakerSettings
from squall_resilience.errors import BreakerOpen, DeadlineExceeded
from squall_resilience.fallback import Fallback
from squall_resilience.metrics import Registry
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.order import ORDER
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.trace import trace_of
from squall_resilience.retry import RetrySettings
from squall_resilience.safe import idempotent
from squall_resilience.timeout import TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from squall_resilience.events import Event
    from squall_resilience.pattern import Pattern


def policy_of(*links: Pattern, listeners: Iterable[Callable[[Event], None]] = (), **parts: Any) -> Policy:
    return Policy("inventory", PolicySettings(**parts), links=links, listeners=listeners, registry=None)


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
