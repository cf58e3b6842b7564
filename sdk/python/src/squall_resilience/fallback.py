"""Fallback: when a call fails, the last good answer for the same arguments, or a preset one.

What it gave instead is told as an event, counted, and noticed by `staleness()`; the signature stays.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, ParamSpec, TypeVar

from squall_resilience.core.last_good import LastGood
from squall_resilience.errors import origin_of
from squall_resilience.events import FellBack, Listener, logger
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Pattern
from squall_resilience.settings import Settings, count, seconds, switch
from squall_resilience.substitutes import Substitute, notice
from squall_resilience.tries import told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable

__all__ = ["Fallback", "FallbackSettings"]

P = ParamSpec("P")
R = TypeVar("R")

_NONE: Final = object()
"""No answer: None is one."""


@dataclass(frozen=True)
class FallbackSettings(Settings):
    """What is kept, and for how long."""

    ttl: float = seconds(30.0)
    """Seconds for which the last good answer may stand in."""
    keys: int = count(1000, low=1)
    """So many answers are kept, by their arguments."""
    last_good: bool = switch(default=True)
    """Keep answers at all; without, there is the preset one only."""


class Fallback(Pattern):
    """Answers for a dependency that does not.

    First the last good answer for the same arguments, if it is not older than `ttl`; else `preset`; else what `compute`
    gives for the arguments (awaited if need be, for an awaited call); else the failure goes on. `key` makes a hashable
    key from the arguments: needed where they have no hash, or where the answer depends on more than they say (whose
    session it is: without it one user could be given another's answer). `on`: which exceptions; all by default, since
    whatever a client library raises means that there is no answer.

    What is kept is the very object that the call gave: who changes it changes what others are given.
    """

    kind: ClassVar[str] = "fallback"

    def __init__(
        self,
        dependency: str,
        settings: FallbackSettings | None = None,
        *,
        preset: object = _NONE,
        compute: Callable[..., object] | None = None,
        key: Callable[..., Hashable] | None = None,
        on: tuple[type[Exception], ...] | Callable[[Exception], bool] = (Exception,),
        clock: Callable[[], float] = monotonic,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        super().__init__(dependency, listeners=listeners, registry=registry)
        self.clock = clock
        self.answers: dict[Literal["primary", "preset", "cached", "none"], int]
        self.answers = {"primary": 0, "preset": 0, "cached": 0, "none": 0}
        self._preset = preset
        self._compute = compute
        self._key = key or _arguments
        self._on = on
        settings = settings or FallbackSettings()
        self.kept: LastGood[Any] = LastGood(settings.ttl, settings.keys)
        self.configure(settings)

    @property
    def settings(self) -> FallbackSettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: FallbackSettings) -> None:
        """New settings for the next call; answers that are kept stay, unless none are to be."""
        self._settings = settings
        self._keeps = settings.last_good
        self.kept.ttl, self.kept.keys_max = settings.ttl, settings.keys
        if not settings.last_good:
            self.kept.clear()

    def samples(self) -> Iterable[Sample]:
        """Calls by where their answer came from; "none": the failure went on."""
        for answer, number in self.answers.items():
            yield Sample(
                "resilience_fallback_calls_total",
                number,
                (("dependency", self.dependency), ("answer", answer)),
                "counter",
                "Calls by where their answer came from: the dependency, a preset, the last good one, or nowhere.",
            )

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call, answered from elsewhere when it fails."""
        owner = _owner(call)

        @functools.wraps(call)
        def answered(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                if not self._covers(error):
                    raise
                answer: Any = self._ready(error, owner, args, kwargs)
                if answer is _NONE:
                    answer = self._computed(error, args, kwargs)
                if answer is _NONE:
                    raise
                return answer  # type: ignore[no-any-return]  # whoever made the fallback says that it fits
            self._keep(result, owner, args, kwargs)
            return result

        return answered

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call, answered from elsewhere when it fails; `compute` may be a coroutine function."""
        owner = _owner(call)

        @functools.wraps(call)
        async def answered(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                result = await call(*args, **kwargs)
            except Exception as error:
                if not self._covers(error):
                    raise
                answer: Any = self._ready(error, owner, args, kwargs)
                if answer is _NONE:
                    answer = await self._computed_async(error, args, kwargs)
                if answer is _NONE:
                    raise
                return answer  # type: ignore[no-any-return]  # as above
            self._keep(result, owner, args, kwargs)
            return result

        return answered

    def _covers(self, error: Exception) -> bool:
        return isinstance(error, self._on) if isinstance(self._on, tuple) else self._on(error)

    def _found_by(self, owner: Hashable, args: tuple[object, ...], kwargs: dict[str, object]) -> Hashable:
        """What an answer of this call is kept by; None: it cannot be."""
        try:
            key = owner, self._key(*args, **kwargs)
            hash(key)
        except TypeError:
            return None  # arguments without a hash: there is no way to find the answer again
        except Exception:  # noqa: BLE001 - a good answer is worth more than a key
            logger.exception("the key of fallback %r failed: the answer is not kept", self.dependency)
            return None
        return key

    def _keep(self, result: object, owner: Hashable, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self.answers["primary"] += 1
        if self._keeps:
            key = self._found_by(owner, args, kwargs)
            if key is not None:
                self.kept.put(key, result, self.clock())

    def _ready(self, error: Exception, owner: Hashable, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """The kept answer, or the preset one."""
        key = self._found_by(owner, args, kwargs) if self._keeps else None
        kept = None if key is None else self.kept.get(key, self.clock())
        if kept is not None:
            self._fell_back("cached", kept.age, error)
            return kept.value
        if self._preset is not _NONE:
            self._fell_back("preset", 0.0, error)
        return self._preset

    def _computed(self, error: Exception, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if self._compute is None:
            return self._nothing(error)
        try:
            answer = self._compute(*args, **kwargs)
        except Exception as failed:  # noqa: BLE001 - the dependency's failure is what happened; this is a note on it
            return self._nothing(error, failed)
        self._fell_back("preset", 0.0, error)
        return answer

    async def _computed_async(self, error: Exception, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if self._compute is None:
            return self._nothing(error)
        try:
            answer = self._compute(*args, **kwargs)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as failed:  # noqa: BLE001 - as above
            return self._nothing(error, failed)
        self._fell_back("preset", 0.0, error)
        return answer

    def _nothing(self, error: Exception, failed: Exception | None = None) -> object:
        self.answers["none"] += 1
        if failed is not None:
            error.add_note(f"fallback {self.dependency!r}: failed as well: {told(failed)}")
        return _NONE

    def _fell_back(self, answer: Literal["cached", "preset"], age: float, error: Exception) -> None:
        self.answers[answer] += 1
        said = told(error)
        notice(Substitute(self.dependency, answer, age, said))
        self.tell(
            FellBack(
                kind=self.kind,
                dependency=self.dependency,
                answer=answer,
                age=age,
                error=said,
                origin=origin_of(error, self.dependency),
            )
        )


def _owner(call: Callable[..., object]) -> Hashable:
    """Which function it is: one fallback may serve several, and the chain around one may be made anew."""
    bound_to = getattr(call, "__self__", None)
    return inspect.unwrap(call), id(bound_to)  # the decorated function holds it, so no other one gets its id


def _arguments(*args: Hashable, **kwargs: Hashable) -> Hashable:
    return (args, _NONE, tuple(sorted(kwargs.items()))) if kwargs else args
