"""RateLimiter: so many calls in a time, with a burst: a token bucket, one for all calls or one for each key.

    limiter = RateLimiter("payment", RateLimiterSettings(rate=100, burst=20))
    by_tenant = RateLimiter("search", RateLimiterSettings(rate=10, overrides={"acme": {"rate": 1000}}), key="tenant")

A key comes from the call's arguments: the name of one, or a function of all. Memory is bounded whatever keys come, and no key
gets more than its own bucket gives by that (see `core.keyed`, also for what somebody with a million keys can do).
Calls beyond the rate raise RateLimited with an exact `retry_after`, or wait for their token up to `wait` seconds, in
order of arrival. A token that was waited for in vain is given back if nobody has come since.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, cast

from squall_resilience import deadline
from squall_resilience.core.bucket import Bucket, Rate
from squall_resilience.core.keyed import KeyedBuckets
from squall_resilience.errors import Problem, RateLimited, SettingsError
from squall_resilience.events import RejectedCall
from squall_resilience.forking import survive_forks
from squall_resilience.interpreter import ONE_STEP
from squall_resilience.metrics import Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Guarding
from squall_resilience.running import sleep
from squall_resilience.settings import Settings, count, seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable
    from types import TracebackType

    from squall_resilience.events import Listener
    from squall_resilience.metrics import Registry

__all__ = ["Key", "KeySettings", "RateLimiter", "RateLimiterGuard", "RateLimiterSettings"]

P = ParamSpec("P")
R = TypeVar("R")
Key = str | Callable[..., Hashable]
OVERRIDES_MAX = 10_000


@dataclass(frozen=True)
class KeySettings(Settings):
    """One key's own rate."""

    rate: int = count(100, 1, 1_000_000_000)
    """Calls in `per` seconds."""
    per: float = seconds(1.0, 0.001)
    burst: int | None = count(None, 1, 1_000_000_000)
    """Calls that may come at once after a pause; as many as `rate` when it is not given."""

    def limits(self, wait: float) -> Rate:
        """In the units that deciding needs."""
        return Rate.of(self.rate, self.per, self.burst or self.rate, wait)


@dataclass(frozen=True)
class RateLimiterSettings(KeySettings):
    """How many calls in which time."""

    wait: float = seconds(0.0, 0.0, 3600.0)
    """Seconds that a call waits at most for its token, less where its deadline leaves less; 0: rejected at once."""
    keys_max: int = count(10_000, 16, 1_000_000)
    """With keys: how many buckets are kept exactly; others share a sketch."""
    overrides: Mapping[Hashable, KeySettings] = field(default_factory=dict)
    """Rates of certain keys, which are always kept exactly. Values may be mappings, as a file has them."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        overrides: dict[Hashable, KeySettings] = {}
        given = cast("object", self.overrides)
        if not isinstance(given, Mapping) or len(given) > OVERRIDES_MAX:
            problems.append(Problem("overrides", repr(given)[:80], f"a mapping of at most {OVERRIDES_MAX} keys"))
            given = {}
        for key, own in given.items():
            made, wrong = (own, []) if isinstance(own, KeySettings) else KeySettings.read(own, f"overrides.{key}")
            problems += wrong
            if made is not None:
                overrides[key] = made
        object.__setattr__(self, "overrides", MappingProxyType(overrides))
        try:
            super().__post_init__()
        except SettingsError as error:
            problems += error.problems
        if problems:
            raise SettingsError(tuple(problems), source=type(self).__name__)

    def __reduce__(self) -> tuple[object, ...]:
        given = (self.rate, self.per, self.burst, self.wait, self.keys_max, dict(self.overrides))
        return type(self), given

    def own(self) -> dict[Hashable, Rate]:
        """The overrides in the units that deciding needs."""
        return {key: each.limits(self.wait) for key, each in self.overrides.items()}


class RateLimiter(Guarding):
    """Bounds how often a dependency is called, in all or for each key; raises RateLimited beyond."""

    kind: ClassVar[str] = "rate_limiter"

    def __init__(
        self,
        dependency: str,
        settings: RateLimiterSettings | None = None,
        *,
        key: Key | None = None,
        clock: Callable[[], float] = time.monotonic,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self._settings = settings = settings or RateLimiterSettings()
        self._key = key
        self.clock = clock
        self.lock = threading.RLock()
        self._bucket = Bucket(settings.limits(settings.wait))
        self._take = self._bucket.take if ONE_STEP else self._locked_take
        self._keyed: KeyedBuckets | None = None
        if key is not None or settings.overrides:
            self._buckets()
        self.admitted = self.rejected = 0
        survive_forks(self)

    @property
    def settings(self) -> RateLimiterSettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: RateLimiterSettings) -> None:
        """Another rate from now on; tokens that were taken stay taken."""
        with self.lock:
            now, limits = self.clock(), settings.limits(settings.wait)
            self._settings = settings
            self._bucket.configure(limits, now)
            if self._keyed is not None:
                self._keyed.configure(limits, settings.keys_max, settings.own(), now)
            elif settings.overrides:
                self._buckets()

    def forked(self) -> None:
        """The child goes on with what the parent has counted."""

    def samples(self) -> Iterable[Sample]:
        """Calls by outcome, and the keys that are kept."""
        labels = (("dependency", self.dependency),)
        for outcome, value in (("admitted", self.admitted), ("rejected", self.rejected)):
            yield Sample(
                "resilience_rate_limiter_calls_total",
                value,
                (*labels, ("outcome", outcome)),
                "counter",
                "Calls by whether there was a token for them.",
            )
        keys = 0 if self._keyed is None else len(self._keyed)
        yield Sample("resilience_rate_limiter_keys", keys, labels, "gauge", "Keys whose buckets are kept exactly.")

    def guard(self, key: Hashable = None) -> RateLimiterGuard:
        """A token for a `with` or an `async with` block; with a `key`, one of that key's bucket."""
        return RateLimiterGuard(self, key)

    def take(self, key: Hashable = None) -> None:
        """Take a token at once, without waiting; RateLimited when there is none."""
        wait, _ = self._reserve(key, 0.0)
        if wait:
            raise self._refused(-wait)
        self.admitted += 1

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call, once there is a token for it; the thread waits if it may."""
        clock, take, key_of = self.clock, self._take, self._key_of(call)

        @functools.wraps(call)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            if take(clock()):
                self._wait_in_thread(None)
            self.admitted += 1
            return call(*args, **kwargs)

        if key_of is None:
            return limited

        @functools.wraps(call)
        def limited_by_key(*args: P.args, **kwargs: P.kwargs) -> R:
            self._wait_in_thread(key_of(*args, **kwargs))
            self.admitted += 1
            return call(*args, **kwargs)

        return limited_by_key

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call, once there is a token for it; other tasks run while it waits."""
        clock, take, key_of = self.clock, self._take, self._key_of(call)

        @functools.wraps(call)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            if take(clock()):
                await self._wait_in_task(None)
            self.admitted += 1
            return await call(*args, **kwargs)

        if key_of is None:
            return limited

        @functools.wraps(call)
        async def limited_by_key(*args: P.args, **kwargs: P.kwargs) -> R:
            await self._wait_in_task(key_of(*args, **kwargs))
            self.admitted += 1
            return await call(*args, **kwargs)

        return limited_by_key

    def enter_in_thread(self, key: Hashable) -> None:
        """Take a token, wait for it as long as may be, or raise RateLimited."""
        self._wait_in_thread(key)
        self.admitted += 1

    async def enter_in_task(self, key: Hashable) -> None:
        """The same in a task."""
        await self._wait_in_task(key)
        self.admitted += 1

    def _wait_in_thread(self, key: Hashable) -> None:
        wait, full_at = self._reserve(key, self._patience())
        if wait > 0:
            try:
                time.sleep(wait)
            except BaseException:
                self._give_back(key, full_at)
                raise
        elif wait < 0:
            raise self._refused(-wait)

    async def _wait_in_task(self, key: Hashable) -> None:
        wait, full_at = self._reserve(key, self._patience())
        if wait > 0:
            try:
                await sleep(wait)
            except BaseException:
                self._give_back(key, full_at)
                raise
        elif wait < 0:
            raise self._refused(-wait)

    def _locked_take(self, now: float) -> float:
        with self.lock:
            return self._bucket.take(now)

    def _reserve(self, key: Hashable, patience: float) -> tuple[float, float]:
        """Seconds to wait for a token (negative: none is taken), and when its bucket is full after that."""
        now = self.clock()
        with self.lock:
            if key is None and self._keyed is None:
                return self._bucket.take(now, patience), self._bucket.full_at
            keyed = self._buckets()
            return keyed.take(key, now, patience), keyed.full_at(key)

    def _give_back(self, key: Hashable, full_at: float) -> None:
        with self.lock:
            if key is None and self._keyed is None:
                self._bucket.give_back(full_at)
            else:
                self._buckets().give_back(key, full_at)

    def _buckets(self) -> KeyedBuckets:
        if self._keyed is None:
            settings = self._settings
            self._keyed = KeyedBuckets(settings.limits(settings.wait), settings.keys_max, settings.own())
        return self._keyed

    def _refused(self, retry_after: float) -> RateLimited:
        self.rejected += 1
        self.tell(RejectedCall(kind=self.kind, dependency=self.dependency, cause="rate"))
        return RateLimited(
            f"{self.dependency}: calls come faster than they may; there is a token in {retry_after:.3g} s",
            dependency=self.dependency,
            retry_after=retry_after,
        )

    def _patience(self) -> float:
        patience = self._settings.wait
        if patience:
            left = deadline.remaining()
            if left is not None and left < patience:
                return left
        return patience

    def _key_of(self, call: Callable[..., object]) -> Callable[..., Hashable] | None:
        """The function that gives a call's key; TypeError when no parameter has the name that was given as key."""
        if self._key is None or callable(self._key):
            return self._key
        name = self._key
        parameters = list(inspect.signature(call).parameters.values())
        found = [index for index, each in enumerate(parameters) if each.name == name]
        if not found or parameters[found[0]].kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            raise TypeError(f"{self.kind} {self.dependency!r}: {call!r} has no parameter {name!r} to take the key from")
        index, parameter = found[0], parameters[found[0]]
        by_place = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        default = None if parameter.default is inspect.Parameter.empty else parameter.default

        def from_arguments(*args: object, **kwargs: object) -> Hashable:
            return args[index] if by_place and index < len(args) else kwargs.get(name, default)

        return from_arguments


class RateLimiterGuard:
    """A token for one block."""

    __slots__ = ("_key", "_limiter")

    def __init__(self, limiter: RateLimiter, key: Hashable) -> None:
        self._limiter, self._key = limiter, key

    def __enter__(self) -> Self:
        self._limiter.enter_in_thread(self._key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def __aenter__(self) -> Self:
        await self._limiter.enter_in_task(self._key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
