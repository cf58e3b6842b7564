"""One group of calls under way: awaited ones in tasks, blocking ones in threads."""

from __future__ import annotations

import functools
import threading
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast

from squall_resilience.core.group import Members, Outcome, Standing
from squall_resilience.crew import Crew, Mate, crew
from squall_resilience.deadline import moment
from squall_resilience.errors import BulkheadFull, DeadlineExceeded, GroupFailed
from squall_resilience.running import ThreadWaiter, Waiter
from squall_resilience.tries import told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from squall_resilience.group import Group

__all__ = ["Awaited", "Called", "Member"]

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_NONE: Any = object()


class Member(Generic[R]):
    """One call of a group; its value is there once the group's block has ended."""

    __slots__ = ("_default", "_value", "error", "name", "outcome")

    def __init__(self, name: str, default: R) -> None:
        self.name = name
        self.outcome: Outcome | None = None
        """None until the block has ended."""
        self.error: BaseException | None = None
        """Why it has no value of its own."""
        self._default = default
        self._value: R = _NONE

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.outcome == "ok"

    @property
    def value(self) -> R:
        """What it gave, or its default. Raises its error when it has neither, LookupError when it was not needed."""
        if self.outcome == "ok":
            return self._value
        if self.outcome == "defaulted":
            return self._default
        if self.outcome == "failed" and self.error is not None:
            raise self.error
        why = "its group has not ended" if self.outcome is None else "enough others had succeeded"
        raise LookupError(f"member {self.name!r} has no value: {why}")

    def gave(self, value: R) -> None:
        """It succeeded with this."""
        self._value = value

    def settle(self, outcome: Outcome, late: BaseException) -> None:
        """Its group has ended; `late` is its error if it has no other."""
        if outcome != "ok" and self.error is None:
            self.error = late
        self.outcome = outcome


class _Calls:
    """What both kinds share."""

    def __init__(self, of: Group, need: int | None) -> None:
        self._of = of
        self._need = need
        self._core = Members(need, of.settings.concurrency)
        self._most = of.settings.members
        self._entered = False
        self._start = self._end = 0.0
        self._outer: float | None = None
        self._jobs: dict[str, Callable[[], Any]] = {}
        self._waiter: Waiter | ThreadWaiter | None = None
        self.members: dict[str, Member[Any]] = {}
        """By name, in the order in which they were added."""

    def _enter(self) -> None:
        if self._entered:
            raise RuntimeError("a group of calls is made anew for each block")
        self._entered = True
        self._start = self._of.clock()
        self._outer = moment.get()
        self._end = self._start + self._of.settings.limit
        if self._outer is not None:
            self._end = min(self._end, self._outer)
        moment.set(self._end)

    def _new(self, name: str, default: object, *, counts: bool, job: Callable[[], Any]) -> Member[Any]:
        if not self._entered or self._core.closed:
            raise RuntimeError("members are added inside of the group's block")
        if name in self._core:
            raise ValueError(f"there is a member named {name!r} already")
        if len(self._core) >= self._most:
            raise ValueError(f"a group of {self._of.dependency!r} has at most {self._most} members (settings.members)")
        self._core.add(name, counts=counts)
        self._jobs[name] = job
        member = self.members[name] = Member(name, default)
        return member

    def _time_left(self) -> float:
        return self._end - self._of.clock()

    def _settle(self) -> None:
        """The end of the block: every member has its outcome, and GroupFailed is raised if too few succeeded."""
        standing: Standing = self._core.finish(out_of_time=self._time_left() <= 0)
        given = self._end - self._start
        late = DeadlineExceeded(
            f"{self._of.dependency}: had not ended when its group did, after {self._of.clock() - self._start:.3g} of {given:.3g} s",
            dependency=self._of.dependency,
            seconds=given,
        )
        for name, member in self.members.items():
            member.settle(self._core.outcome(name), late)
        self._of.settled(standing, self.members.values())
        if standing == "won":
            return
        failed = {name: member.error for name, member in self.members.items() if member.outcome == "failed"}
        errors = cast("dict[str, BaseException]", failed)
        ok, counted = self._core.tally()
        need = counted if self._need is None else self._need
        said = "; ".join(f"{name}: {told(error)}" for name, error in list(errors.items())[:5])
        raise GroupFailed(
            f"{self._of.dependency}: {ok} of {counted} members that count succeeded, {need} needed ({said})",
            errors,
            dependency=self._of.dependency,
        )


class Awaited(_Calls):
    """A group of coroutine functions; see `Group.awaited`."""

    def __init__(self, of: Group, need: int | None) -> None:
        super().__init__(of, need)
        self._crew: Crew
        self._mates: dict[str, Mate] = {}

    def add(self, name: str, call: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Member[R]:
        """One that counts."""
        member = self._new(name, _NONE, counts=True, job=functools.partial(call, *args, **kwargs))
        self._start_more()
        return member

    def optional(
        self, name: str, default: D, call: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Member[R | D]:
        """One whose default stands in when it fails or is too slow."""
        member = self._new(name, default, counts=False, job=functools.partial(call, *args, **kwargs))
        self._start_more()
        return member

    def _start_more(self) -> None:
        while self._time_left() > 0 and (name := self._core.next_to_start()) is not None:
            self._mates[name] = self._crew.start(functools.partial(self._run, name))

    async def _run(self, name: str) -> None:
        member = self.members[name]
        try:
            value = await self._jobs[name]()
        except BaseException as error:
            if self._core.end(name, ok=False):
                member.error = error
            if not isinstance(error, Exception):
                raise
        else:
            if self._core.end(name, ok=True):
                member.gave(value)
        finally:
            if self._waiter is not None:
                self._waiter.wake()
        self._start_more()

    async def __aenter__(self) -> Self:
        self._enter()
        self._crew = crew()
        await self._crew.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        moment.set(self._outer)
        if error is not None:
            self._core.finish()
            await self._crew.__aexit__(kind, error, trace)
            return
        self._core.closed = True
        try:
            while self._core.standing == "open" and (left := self._time_left()) > 0:
                for name in self._core.drop_surplus():
                    if name in self._mates:
                        self._mates[name].cancel()
                self._start_more()
                if self._core.standing == "open":
                    waiter = self._waiter = Waiter()
                    await waiter.wait(left)
            for name in self._core.drop_surplus():
                if name in self._mates:
                    self._mates[name].cancel()
        finally:
            self._core.ended = True
            self._crew.cancel()
            await self._crew.__aexit__(None, None, None)
        self._settle()


class Called(_Calls):
    """A group of plain functions in threads; see `Group.called`."""

    def __init__(self, of: Group, need: int | None) -> None:
        super().__init__(of, need)
        self._lock = threading.RLock()
        self._context: Context

    def add(self, name: str, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Member[R]:
        """One that counts."""
        with self._lock:
            member = self._new(name, _NONE, counts=True, job=functools.partial(call, *args, **kwargs))
            self._start_more()
        return member

    def optional(
        self, name: str, default: D, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Member[R | D]:
        """One whose default stands in when it fails or is too slow."""
        with self._lock:
            member = self._new(name, default, counts=False, job=functools.partial(call, *args, **kwargs))
            self._start_more()
        return member

    def _start_more(self) -> None:
        while self._time_left() > 0 and (name := self._core.next_to_start()) is not None:
            if not self._of.workers.give(functools.partial(self._run, name)):
                self.members[name].error = BulkheadFull(
                    f"{self._of.dependency}: all threads for groups are in use", dependency=self._of.dependency
                )
                self._core.end(name, ok=False)

    def _run(self, name: str) -> None:
        """In a worker: the members that are begun after this one has ended are given from here."""
        value, failed = _NONE, None
        if not self._core.ended:
            try:
                value = self._context.copy().run(self._jobs[name])
            except BaseException as error:  # noqa: BLE001 - it is the member's
                failed = error
        with self._lock:
            if self._core.ended:
                return
            member = self.members[name]
            if self._core.end(name, ok=failed is None):
                if failed is None:
                    member.gave(value)
                else:
                    member.error = failed
            self._start_more()
            if self._waiter is not None:
                self._waiter.wake()

    def __enter__(self) -> Self:
        self._enter()
        self._context = copy_context()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        moment.set(self._outer)
        if error is not None:
            with self._lock:
                self._core.finish()
            return
        try:
            while True:
                with self._lock:
                    self._core.closed = True
                    self._core.drop_surplus()
                    self._start_more()
                    left = self._time_left()
                    if self._core.standing != "open" or left <= 0:
                        break
                    waiter = self._waiter = ThreadWaiter()
                waiter.wait(left)
        finally:
            with self._lock:
                self._core.ended = True
        self._settle()
