"""What every pattern is: a decorator that keeps the signature, for functions and for coroutine functions.

A pattern is made once per dependency and shared; `pattern(call)` is a call that rides through it, `pattern.guard()` the
same for a block where the pattern can do without calling again. A chain is calls wrapped in turn (see `policy`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, cast

from squall_resilience.events import Event, Listener, Listeners, everyone
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

__all__ = ["Guard", "Guarding", "Pattern", "is_async"]

P = ParamSpec("P")
R = TypeVar("R")


def is_async(call: Callable[..., object]) -> bool:
    """Whether calling this gives something to await: coroutine functions, also partial, bound, or an object's `__call__`."""
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


class Guard(AbstractContextManager[Any], AbstractAsyncContextManager[Any], Protocol):
    """One passage through a pattern, for one `with` or `async with`; made anew for each."""


class Pattern(ABC):
    """A pattern for one named dependency.

    Subclasses set `kind` and implement `wrap_sync`, `wrap_async` and `samples`; `configure(settings)` applies new
    settings live, without forgetting what was counted. State lives in an I/O-free core with an injected clock.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        dependency: str,
        *,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        self.dependency = dependency
        self.listeners = Listeners(*listeners)
        if registry is not None:
            registry.add(self)

    def __call__(self, call: Callable[P, R]) -> Callable[P, R]:
        """The same call, through this pattern: same signature, async when it is.

        Raises TypeError for generator functions, whose body runs after the call has returned: use `guard()` inside.
        """
        if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
            return self.wrap_generator(cast("Callable[P, R]", call))
        if is_async(call):
            return cast("Callable[P, R]", self.wrap_async(cast("Callable[P, Awaitable[object]]", call)))
        return self.wrap_sync(call)

    @abstractmethod
    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call through this pattern, blocking."""

    @abstractmethod
    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The call through this pattern, on asyncio or trio."""

    def wrap_generator(self, call: Callable[P, R]) -> Callable[P, R]:
        """The generator function through this pattern; what cannot (it would have to call twice) refuses."""
        raise TypeError(
            f"{self.kind} {self.dependency!r} cannot wrap the generator function {call!r}: its body runs after the call"
            " has returned, and what was yielded cannot be taken back"
        )

    @abstractmethod
    def samples(self) -> Iterable[Sample]:
        """Its numbers now; names begin with `resilience_`, the first label is `dependency`."""

    def tell(self, event: Event) -> None:
        """Hand an event to this pattern's listeners, then to those of the whole process."""
        self.listeners.tell(event)
        everyone.tell(event)


class Guarding(Pattern):
    """A pattern that needs no second call, so it can also guard a block: breaker, bulkhead, limiter, time-out."""

    @abstractmethod
    def guard(self) -> Guard:
        """One passage: `with pattern.guard():` or `async with pattern.guard():`."""

    def wrap_generator(self, call: Callable[P, R]) -> Callable[P, R]:
        """The whole iteration is one passage: it ends when the generator is exhausted, closed or raises."""
        from squall_resilience.generators import guarded_generator

        return guarded_generator(self.guard, call)
