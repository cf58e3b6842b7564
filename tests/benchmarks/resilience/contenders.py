"""What is measured: calls that succeed, through one pattern or five, of squall-resilience and of its peers."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["BARE", "CONTENDERS", "OURS", "Contender"]

OURS = "squall-resilience"
BARE = "nothing"
PLENTY = 1_000_000_000
"""Calls a second that no limiter here refuses."""


def dependency(number: int) -> int:
    """What is called: it does nothing."""
    return number


async def awaited(number: int) -> int:
    """What is awaited: it does nothing."""
    return number


@dataclass(frozen=True)
class Contender:
    """One way through one pattern. `make` gives the call; it is called inside of a running loop."""

    group: str
    who: str
    is_async: bool
    make: Callable[[], Callable[[int], Any]]
    what: str = ""
    """What it does more, or less, than its neighbours."""


def _ours_breaker() -> Any:
    from squall_resilience import BreakerSettings, CircuitBreaker

    return CircuitBreaker("bench", BreakerSettings(latency=1.0), registry=None)


def _in_block() -> Callable[[int], int]:
    breaker = _ours_breaker()

    def call(number: int) -> int:
        with breaker.guard():
            return dependency(number)

    return call


def _ours(name: str, call: Callable[[int], Any], settings: object = None, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        pattern = getattr(importlib.import_module("squall_resilience"), name)
        return pattern("bench", settings() if callable(settings) else settings, registry=None, **options)(call)

    return make


def _of_ours(name: str, **values: Any) -> Callable[[], object]:
    return lambda: getattr(importlib.import_module("squall_resilience"), name)(**values)


def _ours_five(call: Callable[[int], Any]) -> Any:
    ours = importlib.import_module("squall_resilience")
    retry = ours.Retry("bench", idempotent=True, registry=None)
    settings = ours.PolicySettings(
        timeout=ours.TimeoutSettings(5.0),
        breaker=ours.BreakerSettings(latency=1.0),
        bulkhead=ours.BulkheadSettings(),
        fallback=ours.FallbackSettings(last_good=False),
    )
    return ours.Policy("bench", settings, links=[retry], registry=None)(call)


def _ours_by_hand(call: Callable[[int], Any]) -> Any:
    ours = importlib.import_module("squall_resilience")
    for pattern in (
        ours.Timeout("bench", ours.TimeoutSettings(5.0), registry=None),
        _ours_breaker(),
        ours.Bulkhead("bench", registry=None),
        ours.Retry("bench", idempotent=True, registry=None),
        ours.Fallback("bench", ours.FallbackSettings(last_good=False), preset=None, registry=None),
    ):
        call = pattern(call)
    return call


def _interlock(call: Callable[[int], Any], **config: Any) -> Callable[[], Any]:
    def make() -> Any:
        interlock = importlib.import_module("interlock")
        return interlock.CircuitBreaker(name="bench", config=interlock.Config(**config))(call)

    return make


def _interlock_pipeline(call: Callable[[int], Awaitable[int]]) -> Any:
    interlock = importlib.import_module("interlock")
    builder = interlock.Pipeline.builder()
    builder = builder.circuit_breaker(interlock.CircuitBreaker(name="bench"))
    return builder.bulkhead(100).timeout(5.0).build()(call)


def _pyresilience(call: Callable[[int], Any], *parts: str) -> Callable[[], Any]:
    def make() -> Any:
        their = importlib.import_module("pyresilience")
        all_of = {
            "timeout": lambda: their.TimeoutConfig(5),
            "retry": their.RetryConfig,
            "breaker": their.CircuitBreakerConfig,
            "window": lambda: their.CircuitBreakerConfig(
                sliding_window_size=100, minimum_calls=10, slow_call_duration=1, slow_call_rate_threshold=0.5
            ),
            "bulkhead": lambda: their.BulkheadConfig(max_concurrent=100),
            "rate_limiter": lambda: their.RateLimiterConfig(max_calls=PLENTY),
            "fallback": their.FallbackConfig,
        }
        names = {"breaker": "circuit_breaker", "window": "circuit_breaker"}
        return their.resilient(**{names.get(part, part): all_of[part]() for part in parts})(call)

    return make


def _hyx_five() -> Any:
    from hyx.bulkhead import bulkhead
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.fallback import fallback
    from hyx.retry import retry
    from hyx.timeout import timeout

    async def preset(*_: object, **__: object) -> None:
        return None

    call: Any = awaited
    for pattern in (
        timeout(5.0),
        consecutive_breaker(),
        bulkhead(max_concurrency=100, max_capacity=200),
        retry(attempts=3),
        fallback(preset),
    ):
        call = pattern(call)
    return call


def _hyx(module: str, name: str, *args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module(f"hyx.{module}"), name)(*args, **options)(awaited)


def _tenacity(call: Callable[[int], Any]) -> Any:
    import tenacity

    return tenacity.retry(stop=tenacity.stop_after_attempt(3))(call)


def _stamina(call: Callable[[int], Any]) -> Any:
    import stamina

    return stamina.retry(on=ValueError, attempts=3)(call)


def _limits(strategy: str) -> Any:
    import limits

    limiter = getattr(limits.strategies, strategy)(limits.storage.MemoryStorage())
    limit = limits.parse(f"{PLENTY}/second")

    def call(number: int) -> int:
        limiter.hit(limit, "bench")
        return dependency(number)

    return call


def _limits_async() -> Any:
    import limits
    import limits.aio

    limiter = limits.aio.strategies.FixedWindowRateLimiter(limits.aio.storage.MemoryStorage())
    limit = limits.parse(f"{PLENTY}/second")

    async def call(number: int) -> int:
        await limiter.hit(limit, "bench")
        return await awaited(number)

    return call


def _aiolimiter() -> Any:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(PLENTY, 1)

    async def call(number: int) -> int:
        async with limiter:
            return await awaited(number)

    return call


def _asyncio_timeout() -> Any:
    async def call(number: int) -> int:
        async with asyncio.timeout(5):
            return await awaited(number)

    return call


def _factory(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _purgatory(*, is_async: bool) -> Any:
    if is_async:
        return _factory("purgatory", "AsyncCircuitBreakerFactory")()("bench")(awaited)
    return _factory("purgatory", "SyncCircuitBreakerFactory")()("bench")(dependency)


WINDOWS = {"slow_call_duration_threshold": 2.0, "slow_call_rate_threshold": 0.3}
IDEMPOTENT = {"idempotent": True}
LIMIT = _of_ours("RateLimiterSettings", rate=PLENTY)

CONTENDERS = (
    Contender("call", BARE, False, lambda: dependency),
    Contender("call", BARE, True, lambda: awaited),
    Contender("breaker", OURS, False, lambda: _ours_breaker()(dependency), "error rate, p95, row"),
    Contender("breaker", f"{OURS}, with block", False, _in_block, "error rate, p95, row"),
    Contender("breaker", "circuitbreaker", False, lambda: _factory("circuitbreaker", "circuit")(dependency), "row"),
    Contender("breaker", "pybreaker", False, lambda: _factory("pybreaker", "CircuitBreaker")()(dependency), "row"),
    Contender("breaker", "purgatory", False, lambda: _purgatory(is_async=False), "row"),
    Contender("breaker", "interlock-cb", False, _interlock(dependency), "error rate"),
    Contender("breaker", "interlock-cb, slow calls", False, _interlock(dependency, **WINDOWS), "error and slow rate"),
    Contender("breaker", "pyresilience", False, _pyresilience(dependency, "breaker"), "row"),
    Contender("breaker", "pyresilience, window", False, _pyresilience(dependency, "window"), "error and slow rate"),
    Contender("breaker", OURS, True, lambda: _ours_breaker()(awaited), "error rate, p95, row"),
    Contender("breaker", "circuitbreaker", True, lambda: _factory("circuitbreaker", "circuit")(awaited), "row"),
    Contender("breaker", "purgatory", True, lambda: _purgatory(is_async=True), "row"),
    Contender("breaker", "hyx", True, _hyx("circuitbreaker", "consecutive_breaker"), "row"),
    Contender("breaker", "interlock-cb", True, _interlock(awaited), "error rate"),
    Contender("breaker", "interlock-cb, slow calls", True, _interlock(awaited, **WINDOWS), "error and slow rate"),
    Contender("breaker", "pyresilience", True, _pyresilience(awaited, "breaker"), "row"),
    Contender("breaker", "pyresilience, window", True, _pyresilience(awaited, "window"), "error and slow rate"),
    Contender("retry", OURS, False, _ours("Retry", dependency, **IDEMPOTENT), "with a budget"),
    Contender("retry", "tenacity", False, lambda: _tenacity(dependency)),
    Contender("retry", "stamina", False, lambda: _stamina(dependency)),
    Contender("retry", "pyresilience", False, _pyresilience(dependency, "retry")),
    Contender("retry", OURS, True, _ours("Retry", awaited, **IDEMPOTENT), "with a budget"),
    Contender("retry", "tenacity", True, lambda: _tenacity(awaited)),
    Contender("retry", "stamina", True, lambda: _stamina(awaited)),
    Contender("retry", "hyx", True, _hyx("retry", "retry", attempts=3)),
    Contender("retry", "pyresilience", True, _pyresilience(awaited, "retry")),
    Contender("rate limit", OURS, False, _ours("RateLimiter", dependency, LIMIT), "token bucket"),
    Contender("rate limit", "limits", False, lambda: _limits("FixedWindowRateLimiter"), "fixed window"),
    Contender(
        "rate limit", "limits, sliding", False, lambda: _limits("SlidingWindowCounterRateLimiter"), "two windows"
    ),
    Contender("rate limit", "pyresilience", False, _pyresilience(dependency, "rate_limiter"), "token bucket"),
    Contender("rate limit", OURS, True, _ours("RateLimiter", awaited, LIMIT), "token bucket"),
    Contender("rate limit", "limits", True, _limits_async, "fixed window"),
    Contender("rate limit", "aiolimiter", True, _aiolimiter, "leaky bucket"),
    Contender("rate limit", "hyx", True, _hyx("ratelimit", "tokenbucket", PLENTY, 1, PLENTY), "token bucket"),
    Contender("time-out", OURS, True, _ours("Timeout", awaited), "a deadline for all within"),
    Contender("time-out", "asyncio.timeout", True, _asyncio_timeout),
    Contender("time-out", "hyx", True, _hyx("timeout", "timeout", 5.0)),
    Contender("time-out", "pyresilience", True, _pyresilience(awaited, "timeout")),
    Contender("bulkhead", OURS, False, _ours("Bulkhead", dependency), "bounded queue"),
    Contender("bulkhead", "pyresilience", False, _pyresilience(dependency, "bulkhead")),
    Contender("bulkhead", OURS, True, _ours("Bulkhead", awaited), "bounded queue"),
    Contender("bulkhead", "hyx", True, _hyx("bulkhead", "bulkhead", max_concurrency=100, max_capacity=200)),
    Contender("five", f"{OURS}, Policy", False, lambda: _ours_five(dependency), "traced, settings live"),
    Contender("five", f"{OURS}, by hand", False, lambda: _ours_by_hand(dependency), "decorators in turn"),
    Contender(
        "five", "pyresilience", False, _pyresilience(dependency, "timeout", "window", "bulkhead", "retry", "fallback")
    ),
    Contender("five", f"{OURS}, Policy", True, lambda: _ours_five(awaited), "traced, settings live"),
    Contender("five", f"{OURS}, by hand", True, lambda: _ours_by_hand(awaited), "decorators in turn"),
    Contender(
        "five", "pyresilience", True, _pyresilience(awaited, "timeout", "window", "bulkhead", "retry", "fallback")
    ),
    Contender("five", "hyx", True, _hyx_five),
    Contender("five", "interlock-cb", True, lambda: _interlock_pipeline(awaited), "three: no retry, no fallback"),
)

warnings.filterwarnings("ignore", category=DeprecationWarning)
