"""Patterns that let a service ride faults out, and chaos inside it; see the README of squall-resilience.

What is named here is imported when it is first asked for: a service pays for the patterns that it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall_resilience.adaptive import AdaptiveConcurrency, AdaptiveSettings
    from squall_resilience.breaker import BreakerReading, BreakerSettings, CircuitBreaker
    from squall_resilience.bulkhead import Bulkhead, BulkheadSettings
    from squall_resilience.client import ClientSettings, PoolSettings
    from squall_resilience.fallback import Fallback, FallbackSettings
    from squall_resilience.group import Group, GroupSettings, Member
    from squall_resilience.hedge import Hedge, HedgeSettings
    from squall_resilience.policy.chain import Policy
    from squall_resilience.policy.explain import Explanation
    from squall_resilience.policy.live import LiveSettings
    from squall_resilience.policy.order import WrongOrder
    from squall_resilience.policy.settings import PolicySettings
    from squall_resilience.policy.trace import Trace, trace_of
    from squall_resilience.policy.watching import Watcher, watch
    from squall_resilience.propagation import carrying
    from squall_resilience.rate_limiter import KeySettings, RateLimiter, RateLimiterSettings
    from squall_resilience.retry import Retry, RetryBudget, RetrySettings, attempt_number
    from squall_resilience.safe import idempotent
    from squall_resilience.substitutes import Staleness, staleness
    from squall_resilience.timeout import Timeout, TimeoutGuard, TimeoutSettings

__version__ = "0.1.0"

__all__ = [
    "AdaptiveConcurrency",
    "AdaptiveSettings",
    "BreakerReading",
    "BreakerSettings",
    "Bulkhead",
    "BulkheadSettings",
    "CircuitBreaker",
    "ClientSettings",
    "Explanation",
    "Fallback",
    "FallbackSettings",
    "Group",
    "GroupSettings",
    "Hedge",
    "HedgeSettings",
    "KeySettings",
    "LiveSettings",
    "Member",
    "Policy",
    "PolicySettings",
    "PoolSettings",
    "RateLimiter",
    "RateLimiterSettings",
    "Retry",
    "RetryBudget",
    "RetrySettings",
    "Staleness",
    "Timeout",
    "TimeoutGuard",
    "TimeoutSettings",
    "Trace",
    "Watcher",
    "WrongOrder",
    "attempt_number",
    "carrying",
    "idempotent",
    "staleness",
    "trace_of",
    "watch",
]

_HOMES = {
    "AdaptiveConcurrency": "adaptive",
    "AdaptiveSettings": "adaptive",
    "BreakerReading": "breaker",
    "BreakerSettings": "breaker",
    "Bulkhead": "bulkhead",
    "BulkheadSettings": "bulkhead",
    "CircuitBreaker": "breaker",
    "ClientSettings": "client",
    "Explanation": "policy.explain",
    "Fallback": "fallback",
    "FallbackSettings": "fallback",
    "Group": "group",
    "GroupSettings": "group",
    "Hedge": "hedge",
    "HedgeSettings": "hedge",
    "KeySettings": "rate_limiter",
    "LiveSettings": "policy.live",
    "Member": "group",
    "Policy": "policy.chain",
    "PolicySettings": "policy.settings",
    "PoolSettings": "client",
    "RateLimiter": "rate_limiter",
    "RateLimiterSettings": "rate_limiter",
    "Retry": "retry",
    "RetryBudget": "retry",
    "RetrySettings": "retry",
    "Staleness": "substitutes",
    "Timeout": "timeout",
    "TimeoutGuard": "timeout",
    "TimeoutSettings": "timeout",
    "Trace": "policy.trace",
    "Watcher": "policy.watching",
    "WrongOrder": "policy.order",
    "attempt_number": "retry",
    "carrying": "propagation",
    "idempotent": "safe",
    "staleness": "substitutes",
    "trace_of": "policy.trace",
    "watch": "policy.watching",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
