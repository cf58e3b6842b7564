"""What makes the links of a chain, by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from squall_resilience.adaptive import AdaptiveConcurrency
from squall_resilience.breaker import CircuitBreaker
from squall_resilience.bulkhead import Bulkhead
from squall_resilience.fallback import Fallback
from squall_resilience.hedge import Hedge
from squall_resilience.policy.total import Deadline
from squall_resilience.rate_limiter import RateLimiter
from squall_resilience.retry import Retry
from squall_resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from squall_resilience.pattern import Pattern

__all__ = ["PARTS", "Reconfigurable"]


class Reconfigurable(Protocol):
    """What every pattern is that has settings."""

    @property
    def settings(self) -> Any:
        """Those in force."""

    def configure(self, settings: Any) -> None:
        """Take other ones."""


PARTS: Mapping[str, Callable[..., Pattern]] = {
    "timeout": Timeout,
    "adaptive_concurrency": AdaptiveConcurrency,
    "breaker": CircuitBreaker,
    "bulkhead": Bulkhead,
    "rate_limiter": RateLimiter,
    "hedge": Hedge,
    "retry": Retry,
    "deadline": Deadline,
    "fallback": Fallback,
}
"""Each takes (dependency, settings, clock=, listeners=, registry=)."""
