"""Group: calls that are made at once, under one deadline, and degrade together: what is optional may fail.

    async with page.awaited() as calls:
        price = calls.add("price", fetch_price, sku)                    # must succeed
        reviews = calls.optional("reviews", [], fetch_reviews, sku)     # or else []
    render(price.value, reviews.value)

With `need=2`, two of those that count are enough, and the others are cancelled once they are there. Members begin when
they are added, so many at once, and have all ended when the block does; blocking ones, in `with page.called() as
calls:`, run in threads, and what is too slow there goes on to its own end, which nobody waits for.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Literal

from squall_resilience.core.group import GroupSettings, Standing
from squall_resilience.events import Event, FellBack, Listener, Listeners, everyone
from squall_resilience.grouped import Awaited, Called, Member
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.substitutes import Substitute, notice
from squall_resilience.tries import told
from squall_resilience.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Group", "GroupSettings", "Member"]


class Group:
    """Makes groups of calls; one for each place in the code that needs several answers. It wraps no function."""

    kind: ClassVar[str] = "group"

    def __init__(
        self,
        dependency: str,
        settings: GroupSettings | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        self.dependency = dependency
        self.clock = clock
        self.listeners = Listeners(*listeners)
        self.members: dict[Literal["ok", "defaulted", "failed"], int] = {"ok": 0, "defaulted": 0, "failed": 0}
        self.ended: dict[Literal["won", "lost"], int] = {"won": 0, "lost": 0}
        settings = settings or GroupSettings()
        self.workers = Workers(f"group {dependency}", settings.threads)
        self.configure(settings)
        if registry is not None:
            registry.add(self)

    @property
    def settings(self) -> GroupSettings:
        """Those in force."""
        return self._settings

    def configure(self, settings: GroupSettings) -> None:
        """New settings for groups of calls that begin from now on."""
        self._settings = settings
        self.workers.limit = settings.threads
        self.workers.waiting_max = settings.threads * 4

    def samples(self) -> Iterable[Sample]:
        """Members by how they ended, and groups by whether enough of them succeeded."""
        mine = (("dependency", self.dependency),)
        for outcome, number in self.members.items():
            yield Sample(
                "resilience_group_members_total",
                number,
                (*mine, ("outcome", outcome)),
                "counter",
                "Members of groups by how they ended; those that were not needed any more are not counted.",
            )
        for standing, number in self.ended.items():
            yield Sample(
                "resilience_group_calls_total",
                number,
                (*mine, ("outcome", standing)),
                "counter",
                "Groups of calls by whether enough members succeeded.",
            )

    def awaited(self, *, need: int | None = None) -> Awaited:
        """A group of coroutine functions, for `async with`; `need`: so many that count are enough, None: all of them.

        At the end of the block GroupFailed is raised when too few have succeeded.
        """
        return Awaited(self, need)

    def called(self, *, need: int | None = None) -> Called:
        """The same of plain functions, in threads, for `with`."""
        return Called(self, need)

    def settled(self, standing: Standing, members: Iterable[Member[object]]) -> None:
        """Count a group that has ended, and tell of the defaults that stand in."""
        self.ended["won" if standing == "won" else "lost"] += 1
        for member in members:
            if member.outcome in {"ok", "defaulted", "failed"}:
                self.members[member.outcome] += 1
            if member.outcome == "defaulted" and standing == "won":
                said = f"{member.name}: {told(member.error)}"[:200]
                notice(Substitute(self.dependency, "preset", 0.0, said))
                self.tell(FellBack(kind=self.kind, dependency=self.dependency, answer="preset", age=0.0, error=said))

    def tell(self, event: Event) -> None:
        """Hand an event to this group's listeners, then to those of the whole process."""
        self.listeners.tell(event)
        everyone.tell(event)
