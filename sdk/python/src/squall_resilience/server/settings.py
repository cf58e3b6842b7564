"""Settings of priority pools, by code or from a file; all that is wrong is said at once, with its path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from squall_resilience.errors import Problem, SettingsError
from squall_resilience.settings import Settings, count, seconds, switch

__all__ = ["PoolSettings", "PoolsSettings"]

POOLS_MAX = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


@dataclass(frozen=True)
class PoolSettings(Settings):
    """One pool."""

    workers: int = count(200, 1, 100_000)
    """Requests that run at once."""
    sla: float = seconds(0.5, 0.001, 3600.0)
    """Seconds from arrival. What has not started by then is shed; what is answered later counts as late."""
    waiting: int = count(400, 0, 1_000_000)
    """Requests that may wait for a worker; further ones are shed at once."""


@dataclass(frozen=True)
class PoolsSettings(Settings):
    """The pools of a service, highest priority first."""

    pools: Mapping[str, PoolSettings] = field(
        default_factory=lambda: {"high": PoolSettings(50, 0.1, 100), "default": PoolSettings(200, 0.5, 400)}
    )
    """By name; a request's priority is the name of its pool. Values may be mappings, as a file has them."""
    default: str = "default"
    """Where requests go that say no priority, or one that no pool has."""
    header: str = "X-Priority"
    """The request header that says the priority."""
    total: int | None = count(None, 1, 1_000_000)
    """Requests that run at once in all pools together; a slot that gets free goes to the highest priority that waits."""
    shedding: bool = switch(default=True)
    """Whether lower pools are shed at the door, lowest first, while higher ones wait too long."""
    window: float = seconds(1.0, 0.01, 3600.0)
    """Seconds over which it is judged whether the higher pools wait too long."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        pools: dict[str, PoolSettings] = {}
        given = cast("object", self.pools)
        if not isinstance(given, Mapping) or not 1 <= len(given) <= POOLS_MAX:
            problems.append(Problem("pools", repr(given)[:80], f"a mapping of 1 to {POOLS_MAX} pools"))
            given = {}
        for name, pool in given.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                problems.append(Problem("pools", repr(name), "a name of 1 to 64 of a-z 0-9 . _ -"))
                continue
            made, wrong = (pool, []) if isinstance(pool, PoolSettings) else PoolSettings.read(pool, f"pools.{name}")
            problems += wrong
            if made is not None:
                pools[name] = made
        for text, name, pattern in (("default", self.default, _NAME), ("header", self.header, _HEADER)):
            if not isinstance(cast("object", name), str) or not pattern.fullmatch(name):
                problems.append(Problem(text, repr(name), f"the name of a {'pool' if text == 'default' else 'header'}"))
        object.__setattr__(self, "pools", MappingProxyType(pools))
        try:
            super().__post_init__()
        except SettingsError as error:
            problems += error.problems
        if not problems and self.default not in pools:
            problems.append(Problem("default", repr(self.default), f"one of {', '.join(pools)}"))
        if problems:
            raise SettingsError(tuple(problems), source=type(self).__name__)

    def __reduce__(self) -> tuple[object, ...]:
        rest = (self.default, self.header, self.total, self.shedding, self.window)
        return type(self), (dict(self.pools), *rest)
