"""A policy: its links stand in a checked order, and a call through it is still the call that it was."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall_resilience.breaker import BreakerSettings, CircuitBreaker
from squall_resilience.bulkhead import Bulkhead, BulkheadSettings
from squall_resilience.fallback import Fallback, FallbackSettings
from squall_resilience.pattern import Pattern
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.order import ORDER, WrongOrder
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.rate_limiter import RateLimiterSettings
from squall_resilience.retry import Retry, RetrySettings
from squall_resilience.safe import idempotent
from squall_resilience.timeout import Timeout, TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from squall_resilience.events import Event
    from squall_resilience.metrics import Sample

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
