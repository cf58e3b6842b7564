"""Which members of a group run, and whether it is won, lost or open: no clock, no tasks, no threads.

Members that count: of these `need` must succeed, or all of them. Optional ones have a default: they are waited for until
the group's time is over, and their failure costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from squall_resilience.settings import Settings, count, seconds

__all__ = ["GroupSettings", "Members", "Outcome", "Standing"]

Outcome = Literal["ok", "defaulted", "failed", "cancelled"]
"""Of a member: it succeeded; its default stands in; it failed or was too slow; it was not needed any more."""

Standing = Literal["open", "won", "lost"]

_State = Literal["waiting", "running", "ok", "failed", "dropped"]
_PENDING: Final[frozenset[_State]] = frozenset({"waiting", "running"})


@dataclass(frozen=True)
class GroupSettings(Settings):
    """How long, how many at once, how many in all."""

    limit: float = seconds(3.0, low=0.001)
    """In seconds, for all members together; less where the inherited deadline leaves less."""
    concurrency: int = count(8, low=1, high=10_000)
    """Members under way at once; the others wait in the order in which they were added."""
    members: int = count(100, low=1, high=1000)
    """So many may be added to one group of calls."""
    threads: int = count(32, low=1, high=10_000)
    """Blocking members: threads for all groups of calls together, those included that nobody waits for any more."""


@dataclass
class _Member:
    name: str
    counts: bool
    state: _State = "waiting"


class Members:
    """The members of one group of calls, from the first that is added to the end of the last."""

    def __init__(self, need: int | None, concurrency: int) -> None:
        self.need = need
        self.concurrency = concurrency
        self.closed = False
        """No more are added: only then is it known how many can still succeed."""
        self.ended = False
        self._members: dict[str, _Member] = {}
        self._running = 0

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __len__(self) -> int:
        return len(self._members)

    def add(self, name: str, *, counts: bool) -> None:
        """One more; it waits until `next_to_start` names it."""
        self._members[name] = _Member(name, counts)

    def next_to_start(self) -> str | None:
        """The next one to begin, which then counts as running; None when as many run as may, or none waits."""
        if self.ended or self._running >= self.concurrency:
            return None
        for member in self._members.values():
            if member.state == "waiting":
                member.state = "running"
                self._running += 1
                return member.name
        return None

    def end(self, name: str, *, ok: bool) -> bool:
        """A running member has ended. False: it counts for nothing, the group has ended or needed it no more."""
        member = self._members[name]
        if self.ended or member.state != "running":
            return False
        self._running -= 1
        member.state = "ok" if ok else "failed"
        return True

    @property
    def standing(self) -> Standing:
        """Lost as soon as too few can succeed; won when enough have and no optional one is under way."""
        counted = [member for member in self._members.values() if member.counts]
        ok = sum(member.state == "ok" for member in counted)
        pending = sum(member.state in _PENDING for member in counted)
        if self.need is None:
            if any(member.state == "failed" for member in counted):
                return "lost"
            enough = pending == 0
        else:
            if self.closed and ok + pending < self.need:
                return "lost"
            enough = ok >= self.need
        optional = any(member.state in _PENDING for member in self._members.values() if not member.counts)
        return "won" if self.closed and enough and not optional else "open"

    def drop_surplus(self) -> list[str]:
        """Members that count and need not go on, because enough of them have succeeded; they are dropped by this."""
        if self.need is None or not self.closed or self.ended:
            return []
        counted = [member for member in self._members.values() if member.counts]
        if sum(member.state == "ok" for member in counted) < self.need:
            return []
        surplus = [member for member in counted if member.state in _PENDING]
        for member in surplus:
            self._running -= member.state == "running"
            member.state = "dropped"
        return [member.name for member in surplus]

    def finish(self, *, out_of_time: bool = False) -> Standing:
        """The group ends now, because it stands or its time is over: whether enough have succeeded.

        What is under way has failed if it ran out of time, and else was only not needed any more.
        """
        self.closed = self.ended = True
        counted = [member for member in self._members.values() if member.counts]
        for member in counted:
            if member.state in _PENDING:
                member.state = "failed" if out_of_time else "dropped"
        ok = sum(member.state == "ok" for member in counted)
        return "won" if ok >= (len(counted) if self.need is None else self.need) else "lost"

    def tally(self) -> tuple[int, int]:
        """Of the members that count: how many have succeeded, how many there are."""
        counted = [member for member in self._members.values() if member.counts]
        return sum(member.state == "ok" for member in counted), len(counted)

    def outcome(self, name: str) -> Outcome:
        """How a member ended, once the group has."""
        member = self._members[name]
        if member.state == "ok":
            return "ok"
        if not member.counts:
            return "defaulted"
        return "cancelled" if member.state == "dropped" else "failed"
