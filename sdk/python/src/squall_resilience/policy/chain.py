"""Policy: all that stands between a service and one dependency, in one chain that can change while calls are under way.

A decorated function holds the chain composed for it. A change of settings that adds or removes a link composes every such
chain anew and puts it in place of the old one at once; calls that have begun end in the chain they began in. Patterns
are shared by both chains and never forgotten, so a breaker that is switched off and on again has not lost its counts.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from inspect import signature
from time import time
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast
from weakref import WeakSet

from squall_resilience.events import Listener, SettingsChanged
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.pattern import Pattern, is_async
from squall_resilience.policy.explain import Explanation, explain
from squall_resilience.policy.forks import renewed_in_children
from squall_resilience.policy.live import changes
from squall_resilience.policy.order import ORDER, RANK, check_order
from squall_resilience.policy.overlay import differences
from squall_resilience.policy.parts import PARTS, Reconfigurable
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.trace import Journal, Trace
from squall_resilience.safe import declared, idempotent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Sequence

    from squall_resilience.settings import Settings

__all__ = ["Policy"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., Any])


class _Woven(Generic[C]):
    """One function in its chain; the decorated function holds it, the policy weakly."""

    __slots__ = ("__weakref__", "chain", "compose")

    def __init__(self, compose: Callable[[Sequence[Pattern]], C], links: Sequence[Pattern]) -> None:
        self.compose = compose
        self.chain = compose(links)


class Policy(Pattern):
    """The chain for one dependency: `policy(call)` is the call through it, sync or async; one per dependency, shared.

    `settings` says which links there are; they are made here, unless `links` has one of their kind that was made by hand
    (a Fallback with its answer, a RateLimiter with its key). `links` stand from the inside outwards and are checked:
    WrongOrder says what stands where it would not do what it is for, and why. Patterns of the service's own may stand
    anywhere among them.
    """

    kind = "policy"

    def __init__(
        self,
        dependency: str,
        settings: PolicySettings | None = None,
        *,
        links: Sequence[Pattern] = (),
        clock: Callable[[], float] | None = None,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        check_order(dependency, links)
        self._clock = clock
        self._registry = registry
        self._told = tuple(listeners)
        self._given = tuple(links)
        self._made: dict[str, Pattern] = {}
        self._lock = threading.RLock()
        self._woven: WeakSet[_Woven[Any]] = WeakSet()
        self._links: tuple[Pattern, ...] = ()
        self._settings = _with_given(settings or PolicySettings(), links)
        self._source, self._changed_at, self._generation = "code", time(), 0
        self.journal = Journal(dependency)
        renewed_in_children(self)
        for link in links:
            self._made[link.kind] = link
            self._listen(link)
        super().__init__(dependency, listeners=listeners, registry=registry)
        self._links = self._arrange(self._settings)

    def renew_locks(self) -> None:
        """See `forks`."""
        self._lock = threading.RLock()
        self.journal.lock = threading.RLock()

    @property
    def settings(self) -> PolicySettings:
        """Those in force."""
        return self._settings

    @property
    def source(self) -> str:
        """Where the settings in force are from: "code", or a file's path."""
        return self._source

    @property
    def links(self) -> tuple[Pattern, ...]:
        """The links that are on, from the inside outwards."""
        return self._links

    def link(self, kind: str) -> Pattern | None:
        """The link of this kind, if it is on: `policy.link("breaker")`."""
        return next((link for link in self._links if link.kind == kind), None)

    def configure(self, settings: PolicySettings, source: str = "code") -> None:
        """Put other settings in force for calls that begin from now on: whole, or not at all when one cannot be.

        Links that stay keep what they have counted; `source` is where the settings are from (a file's path).
        """
        with self._lock:
            old = self._settings
            changed = tuple(differences(old, settings))
            if not changed:
                return
            links = self._arrange(settings)
            self._settings, self._links = settings, links
            self._source, self._changed_at = source, time()
            self._generation += 1
            for woven in list(self._woven):
                woven.chain = woven.compose(links)
        self.tell(SettingsChanged(kind=self.kind, dependency=self.dependency, source=source, changed=changed))

    def _arrange(self, settings: PolicySettings) -> tuple[Pattern, ...]:
        """The links that these settings ask for, made or configured; those there are stay as they were when one fails."""
        wanted = {name: given for name, _, given in settings.parts() if given is not None and name in RANK}
        for kind, given in wanted.items():
            if kind not in self._made:
                self._made[kind] = self._make(kind, given)
        done: list[tuple[Reconfigurable, Settings]] = []
        try:
            for kind, given in wanted.items():
                link = cast("Reconfigurable", self._made[kind])
                before = link.settings
                if before != given:
                    done.append((link, before))
                    link.configure(given)
        except Exception:
            for link, before in reversed(done):
                link.configure(before)
            raise
        if self._registry is not None:
            for kind, pattern in self._made.items():
                if kind in RANK:
                    (self._registry.add if kind in wanted else self._registry.remove)(pattern)
        on = [self._made[place.kind] for place in ORDER if place.kind in wanted]
        return tuple(_placed(on, self._given))

    def _make(self, kind: str, settings: Settings) -> Pattern:
        part = PARTS[kind]
        timed = {} if self._clock is None or "clock" not in signature(part).parameters else {"clock": self._clock}
        made = part(self.dependency, settings, listeners=self._told, registry=self._registry, **timed)
        self._listen(made)
        return made

    def _listen(self, link: Pattern) -> None:
        link.listeners.add(self.journal.hear)
        self.journal.kinds |= {link.kind}
        if link.dependency not in self.journal.dependencies:
            self.journal.dependencies += (link.dependency,)

    # calls

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        """The call through the chain as it is at each call."""
        return functools.wraps(call)(self._weave_sync(call))

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The same for what is awaited."""
        return functools.wraps(call)(self._weave_async(call))

    def call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call something once through the chain; await what this gives where `call` is async.

        Links see `call` as the first argument: a fallback's or limiter's key made from the arguments has it too.
        """
        sure = declared(call, False, _never)()
        if is_async(call):
            through = self._awaited[1 if sure else 0]
            return cast("R", through(cast("Callable[..., Awaitable[object]]", call), *args, **kwargs))
        return cast("R", self._called[1 if sure else 0](call, *args, **kwargs))

    @functools.cached_property
    def _called(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What calls anything, and what calls anything that may be called twice."""
        return self._weave_sync(_call), self._weave_sync(_call_again)

    @functools.cached_property
    def _awaited(self) -> tuple[Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]]:
        return self._weave_async(_call_awaited), self._weave_async(_call_awaited_again)

    def _weave_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        woven = self._weave(lambda links: functools.reduce(lambda inner, link: link.wrap_sync(inner), links, call))
        failed = self.journal.failed

        def through(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return woven.chain(*args, **kwargs)
            except BaseException as error:
                failed(error)
                raise

        return through

    def _weave_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        def compose(links: Sequence[Pattern]) -> Callable[P, Awaitable[R]]:
            chain = call
            for link in links:
                chain = link.wrap_async(chain)
            return chain

        woven = self._weave(compose)
        failed = self.journal.failed

        async def through(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await woven.chain(*args, **kwargs)
            except BaseException as error:
                failed(error)
                raise

        return through

    def _weave(self, compose: Callable[[Sequence[Pattern]], C]) -> _Woven[C]:
        with self._lock:
            woven = _Woven(compose, self._links)
            self._woven.add(woven)
            return woven

    # what can be seen

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The last faults of calls through this chain, the latest last: where each began, and where it stopped."""
        return tuple(self.journal.last)

    def explain(self) -> Explanation:
        """The chain as it is now: each link with what it does there, its settings and its state; `str()` draws it."""
        return explain(self)

    def samples(self) -> Iterator[Sample]:
        """Where calls stopped, and when the settings changed last; links yield their own."""
        for (link, end), number in sorted(self.journal.counts.items()):
            yield Sample(
                "resilience_policy_stopped_total",
                number,
                (("dependency", self.dependency), ("link", link), ("end", end)),
                "counter",
                "Faults by the link at which they stopped, and whether the caller got an error or an answer.",
            )
        yield from changes(self.dependency, self._source, self._changed_at, self._generation)


def _never() -> bool:
    return False


def _call(call: Callable[..., R], *args: object, **kwargs: object) -> R:
    return call(*args, **kwargs)


async def _call_awaited(call: Callable[..., Awaitable[R]], *args: object, **kwargs: object) -> R:
    return await call(*args, **kwargs)


@idempotent
def _call_again(call: Callable[..., R], *args: object, **kwargs: object) -> R:
    return call(*args, **kwargs)


@idempotent
async def _call_awaited_again(call: Callable[..., Awaitable[R]], *args: object, **kwargs: object) -> R:
    return await call(*args, **kwargs)


def _with_given(settings: PolicySettings, links: Sequence[Pattern]) -> PolicySettings:
    """The settings with those of links that were made by hand, where they say nothing of their own."""
    of_parts = {name: given for name, _, given in settings.parts()}
    own = {
        link.kind: cast("Reconfigurable", link).settings
        for link in links
        if link.kind in of_parts and of_parts[link.kind] is None
    }
    return dataclasses.replace(settings, **own) if own else settings


def _placed(on: list[Pattern], given: Sequence[Pattern]) -> list[Pattern]:
    """The known links in their order, and each of the service's own right outside of what it was given after."""
    placed, after = list(on), -1
    for link in given:
        if link.kind in RANK:
            after = RANK[link.kind]
            continue
        place = sum(1 for each in placed if each.kind not in RANK or RANK[each.kind] <= after)
        placed.insert(place, link)
    return placed
