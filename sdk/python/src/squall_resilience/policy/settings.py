"""PolicySettings: the settings of a whole chain, one part for each link; a part that is None is a link switched off."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from squall_resilience.adaptive import AdaptiveSettings
from squall_resilience.breaker import BreakerSettings
from squall_resilience.bulkhead import BulkheadSettings
from squall_resilience.client import ClientSettings
from squall_resilience.errors import Problem, SettingsError
from squall_resilience.fallback import FallbackSettings
from squall_resilience.hedge import HedgeSettings
from squall_resilience.policy.overlay import overlay
from squall_resilience.rate_limiter import RateLimiterSettings
from squall_resilience.retry import RetrySettings
from squall_resilience.settings import Settings
from squall_resilience.timeout import TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PolicySettings"]


@dataclass(frozen=True)
class PolicySettings(Settings):
    """The links of a chain from the transport outwards; the order is fixed (see `order`), whatever the order here.

    In code: `PolicySettings(timeout=TimeoutSettings(0.5), retry=RetrySettings())`. In a file: `{timeout: {limit: 500ms}, retry:
    true}`.
    """

    client: ClientSettings | None = field(default=None, metadata={"part": ClientSettings})
    """Time-outs and pool of the transport itself; adapters take them."""
    timeout: TimeoutSettings | None = field(default=None, metadata={"part": TimeoutSettings})
    adaptive_concurrency: AdaptiveSettings | None = field(default=None, metadata={"part": AdaptiveSettings})
    breaker: BreakerSettings | None = field(default=None, metadata={"part": BreakerSettings})
    bulkhead: BulkheadSettings | None = field(default=None, metadata={"part": BulkheadSettings})
    rate_limiter: RateLimiterSettings | None = field(default=None, metadata={"part": RateLimiterSettings})
    hedge: HedgeSettings | None = field(default=None, metadata={"part": HedgeSettings})
    retry: RetrySettings | None = field(default=None, metadata={"part": RetrySettings})
    deadline: TimeoutSettings | None = field(default=None, metadata={"part": TimeoutSettings})
    """For the whole call: all attempts and the waits between them."""
    fallback: FallbackSettings | None = field(default=None, metadata={"part": FallbackSettings})

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = [
            Problem(name, repr(given), f"{of.__name__}, or None for off")
            for name, of, given in self.parts()
            if given is not None and not isinstance(given, of)
        ]
        if problems:
            raise SettingsError(tuple(problems), source=type(self).__name__)

    def parts(self) -> Iterator[tuple[str, type[Settings], Settings | None]]:
        """Name, class and settings of each link, the transport's client included."""
        for each in dataclasses.fields(self):
            yield each.name, each.metadata["part"], getattr(self, each.name)

    @classmethod
    def read(cls, given: object, path: str = "") -> tuple[Self | None, list[Problem]]:
        """Settings from a mapping as a file holds it, or None and every problem, each with its path."""
        if given is None:
            return cls(), []
        return overlay(cls(), given, path)
