"""Drives the faults of a run in time: each begins, pulses, follows its target and ends by itself, and always ends."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from squall.actions import Counted, Leased, StandsBy
from squall.engine.planning import PlannedFault, plan_fault
from squall.errors import CannotInject, InputError, TargetError
from squall.events import (
    MEASURED,
    PASSED_BY,
    ActionDone,
    ActionUndone,
    FaultAdjusted,
    FaultEnded,
    FaultHits,
    FaultStarted,
    Problem,
    TargetFollowed,
    TargetLost,
)
from squall.faults import parse_fault
from squall.targets import Protected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from squall.engine.clock import Clock
    from squall.engine.log import EventLog
    from squall.experiment.model import FaultStep
    from squall.injectors import Choice, Chooser
    from squall.recovery import Entry, Executor, Reverted, RunFolder
    from squall.targets import Target

__all__ = ["Driven", "Driver"]

_FOLLOW_S = 0.1
_PULSES_MOST = 100_000
_READY_MOST = 16
"""So many processes stand by for their moment at most; others are started when it comes."""


@dataclass(slots=True)
class Driven:
    """A fault as it goes: its plan (anew when its target restarts), what is in force, when it was on, how often it hit."""

    planned: PlannedFault
    held: dict[str, list[Entry]] = field(default_factory=dict)
    """What is in force, by its target's key."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    on_since_ns: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    """Of the times it was on that are over."""
    lost: list[str] = field(default_factory=list)
    """Targets that ended without being followed, for people."""

    @property
    def entries(self) -> list[Entry]:
        """What is in force, in the order it was done."""
        return sorted((one for some in self.held.values() for one in some), key=lambda entry: entry.number)

    @property
    def hit_nothing(self) -> bool:
        """Whether it was on, can count, and counted nothing but what passed it by."""
        return (
            bool(self.spans)
            and bool(self.hits)
            and not any(
                count for name, count in self.hits.items() if name not in PASSED_BY and not name.endswith(MEASURED)
            )
        )


class Driver:
    """All faults of one run. Steps are done in threads, one at a time, so that the watchdog goes on beating."""

    def __init__(
        self,
        run: RunFolder,
        seed: int,
        chooser: Chooser,
        executor: Executor,
        log: EventLog,
        clock: Clock,
        stop: asyncio.Event,
    ) -> None:
        self._run, self._seed, self._chooser, self._executor = run, seed, chooser, executor
        self._log, self._clock, self._stop = log, clock, stop
        self.faults: list[Driven] = []
        self.setup: list[Entry] = []
        self._changing = asyncio.Lock()
        """Held while a fault begins, ends, moves or is adjusted."""

    # --- the way in

    async def set_up(self, planned: Iterable[PlannedFault]) -> None:
        """Do what must be there from before the baseline; shared things once."""
        self.faults = [Driven(one) for one in planned]
        there: set[tuple[str, ...]] = set()
        for driven in self.faults:
            for action in driven.planned.setup:
                if action.objects() not in there:
                    there.add(action.objects())
                    self.setup.append(await self._apply(driven.planned.id, action))
        await asyncio.to_thread(self._have_ready, self.faults)

    def _have_ready(self, faults: Iterable[Driven]) -> None:
        """Start what their steps will start, so that a fault begins when it is said to; it has touched nothing yet."""
        steps = [one for driven in faults for one in driven.planned.actions if isinstance(one, StandsBy)]
        for step in steps[:_READY_MOST]:
            with contextlib.suppress(OSError):  # the step itself will say what is missing
                step.stand_by()

    def dismiss(self) -> None:
        """End what was got ready and is not needed any more."""
        for driven in self.faults:
            for step in driven.planned.actions:
                if isinstance(step, StandsBy):
                    step.dismiss()

    async def drive(self, start_ns: int) -> None:
        """Run every fault through its time; returns when all have ended, soon after `stop` is set. Raises the first error."""
        tasks = [asyncio.create_task(self._drive(driven, start_ns)) for driven in self.faults]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._stop.set() if any(not task.done() for task in tasks) else None
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, driven: Driven, start_ns: int) -> None:
        step = driven.planned.step
        for on_ns, off_ns in _windows(step, start_ns + step.after):
            await asyncio.to_thread(self._have_ready, [driven])
            if not await self._until(on_ns):
                return
            await self._look_after_targets(driven)
            if driven.lost:
                if not step.targets.follow:
                    return  # there is nothing left to fault, and a successor was not named
                self._log.emit(Problem(driven.planned.id, f"left out once: {driven.lost[0]} is not there again yet"))
                continue
            try:
                await self._begin(driven)
                await self._hold(driven, off_ns)
            finally:
                await asyncio.shield(self._end(driven))

    async def _hold(self, driven: Driven, off_ns: int) -> None:
        """Until the time is over or the run stops, looking whether the targets are still there."""
        watched = not driven.planned.step.fault.reversible
        while self._clock.mono_ns() < off_ns and not self._stop.is_set():
            if not watched or driven.planned.step.targets.follow:
                await self._look_after_targets(driven)
            if not await self._until(min(off_ns, self._clock.mono_ns() + round(_FOLLOW_S * 1e9))):
                return

    async def _until(self, when_ns: int) -> bool:
        """Sleep; False as soon as the run is to stop."""
        while not self._stop.is_set():
            left_s = (when_ns - self._clock.mono_ns()) / 1e9
            if left_s <= 0:
                return True
            try:
                await asyncio.wait_for(self._stop.wait(), left_s)
            except TimeoutError:
                continue
        return False

    async def _begin(self, driven: Driven) -> None:
        began_ns = self._clock.mono_ns()
        async with self._changing:
            driven.on_since_ns = began_ns
            for target, choice in zip(driven.planned.targets, driven.planned.choices, strict=True):
                await self._put_on(driven, target, choice)
        self._log.emit(FaultStarted(driven.planned.id, self._clock.mono_ns() - began_ns))

    async def _put_on(self, driven: Driven, target: Target, choice: Choice) -> None:
        for action in choice.plan.actions:
            entry = await self._apply(driven.planned.id, action)
            driven.held.setdefault(target.key, []).append(entry)

    async def _apply(self, fault: str, action: Any) -> Entry:
        entry = await asyncio.to_thread(self._executor.apply, fault, action)
        self._log.emit(ActionDone(entry.number, fault, entry.action.kind, entry.action.describe()))
        return entry

    # --- the way out

    async def _end(self, driven: Driven) -> None:
        began_ns = self._clock.mono_ns()
        async with self._changing:
            if not driven.on_since_ns:
                return
            await self._publish_hits(driven)
            was_on = bool(driven.held)  # where not even its first step could be done, nothing was injected
            await self._take_off(driven, driven.entries)
            if was_on:
                driven.spans.append((driven.on_since_ns, self._clock.mono_ns()))
            driven.held, driven.on_since_ns = {}, 0
        if was_on:
            self._log.emit(FaultEnded(driven.planned.id, self._clock.mono_ns() - began_ns))

    async def _take_off(self, driven: Driven, entries: list[Entry]) -> None:
        driven.hits = _together(driven.hits, await asyncio.to_thread(_counters, entries))
        self.tell(await asyncio.to_thread(self._executor.revert, entries))

    def tell(self, reverted: Iterable[Reverted]) -> None:
        """Write down what was undone."""
        for one in reverted:
            entry, look = one.entry, one.look
            self._log.emit(
                ActionUndone(
                    entry.number, entry.fault, entry.action.kind, entry.action.describe_undo(), look.normal, look.detail
                )
            )

    # --- while it is on

    async def publish_hits(self) -> None:
        """Say how often each fault that is on has hit."""
        async with self._changing:
            for driven in self.faults:
                if driven.on_since_ns:
                    await self._publish_hits(driven)

    async def _publish_hits(self, driven: Driven) -> None:
        now = await asyncio.to_thread(_counters, driven.entries)
        total = _together(driven.hits, now)
        if total:
            self._log.emit(FaultHits(driven.planned.id, total))

    async def lapsed(self) -> str | None:
        """A step that lapsed while the run was on, in words; None when all are in force."""
        entries = [*self.setup, *(entry for driven in self.faults for entry in driven.entries)]
        return await asyncio.to_thread(_first_lapsed, entries)

    async def adjust(self, fault: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Change a fault's parameters, at once when it is on and for its later pulses; InputError or CannotInject."""
        driven = next((one for one in self.faults if fault in (one.planned.id, one.planned.step.fault.type)), None)
        if driven is None:
            raise InputError(
                f"there is no fault {fault!r} in this run; there is {', '.join(one.planned.id for one in self.faults)}"
            )
        old = driven.planned.step.fault
        try:
            new = parse_fault(old.type, {**old.parameters(), **parameters})
        except ValueError as error:
            raise InputError(f"{old.type}: {_first_reason(error)}") from error
        async with self._changing:
            step = driven.planned.step.model_copy(update={"fault": new})
            planned = replace(driven.planned, step=step, choices=tuple(
                self._chooser.choose(new, target, driven.planned.site) for target in driven.planned.targets
            ))  # fmt: skip
            await self._become(driven, planned)
            driven.planned = planned
        self._log.emit(FaultAdjusted(planned.id, new.parameters()))
        return new.parameters()

    async def _become(self, driven: Driven, planned: PlannedFault) -> None:
        if not driven.on_since_ns:
            return
        wanted = {
            target.key: choice.plan.actions for target, choice in zip(planned.targets, planned.choices, strict=True)
        }
        pairs = [(entries, wanted.get(key, ())) for key, entries in driven.held.items() if entries]
        if any(len(entries) != len(actions) for entries, actions in pairs):
            raise CannotInject(f"{planned.id} cannot be adjusted while it is on: it would take other steps")
        for entry, asked in (both for pair in pairs for both in zip(*pair, strict=True)):
            action = entry.action.adjusted(asked)
            if entry.action != action and not await asyncio.to_thread(self._executor.adjust, entry, action):
                raise CannotInject(
                    f"{planned.id} cannot be adjusted while it is on: {entry.action.describe()} stays as it is"
                )

    async def _look_after_targets(self, driven: Driven) -> None:
        """Notice targets that ended; where the document asks for it, put the fault on what took their place."""
        gone = [one for one in driven.planned.targets if not await asyncio.to_thread(one.alive)]
        if not gone:
            return
        follow = driven.planned.step.targets.follow
        for one in gone:
            if one.label not in driven.lost:
                driven.lost.append(one.label)
                self._log.emit(TargetLost(driven.planned.id, one.to_json()))
        await self._let_go(driven, gone)
        if not follow:
            return
        try:
            fresh = await asyncio.to_thread(
                plan_fault,
                driven.planned.id,
                driven.planned.step,
                self._seed,
                self._chooser,
                self._run,
                Protected.load(),
            )
        except TargetError:
            return  # not there again yet
        await self._move(driven, fresh, gone)

    async def _let_go(self, driven: Driven, gone: list[Target]) -> None:
        """What was on a target that is gone has nothing to be on: a worker ended with its container has not lapsed."""
        async with self._changing:
            for one in gone:
                if entries := driven.held.get(one.key):
                    driven.held[one.key] = []
                    await self._take_off(driven, entries)

    async def _move(self, driven: Driven, fresh: PlannedFault, gone: list[Target]) -> None:
        known = {one.key for one in driven.planned.targets}
        new = [number for number, one in enumerate(fresh.targets) if one.key not in known]
        if not new:
            return
        async with self._changing:
            if driven.planned.step.fault.reversible and driven.on_since_ns and not self._stop.is_set():
                for number in new:
                    await self._put_on(driven, fresh.targets[number], fresh.choices[number])
            driven.planned = fresh
        for old, number in zip(gone, new, strict=False):
            driven.lost = [label for label in driven.lost if label != old.label]
            self._log.emit(TargetFollowed(fresh.id, old.to_json(), fresh.targets[number].to_json()))


def _windows(step: FaultStep, start_ns: int) -> Iterator[tuple[int, int]]:
    """When the fault is on: once, or in pulses, within its duration."""
    end_ns = start_ns + step.duration
    if step.pulse is None:
        yield start_ns, end_ns
        return
    on_ns = start_ns
    for _ in range(_PULSES_MOST):
        if on_ns >= end_ns:
            return
        yield on_ns, min(on_ns + step.pulse.on, end_ns)
        on_ns += step.pulse.on + step.pulse.off


def _counters(entries: list[Entry]) -> dict[str, int]:
    total: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry.action, Counted):
            total = _together(total, entry.action.counters())
    return total


def _together(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Counts add up; of a measured time (in us, by its name) the longer one stands for both."""
    return {
        name: max(one.get(name, 0), other.get(name, 0))
        if name.endswith(MEASURED)
        else one.get(name, 0) + other.get(name, 0)
        for name in {**one, **other}
    }


def _first_lapsed(entries: list[Entry]) -> str | None:
    for entry in entries:
        if entry.open and isinstance(entry.action, Leased) and not entry.action.in_force():
            return f"{entry.action.describe()} is no longer in force"
    return None


def _first_reason(error: ValueError) -> str:
    reasons = getattr(error, "errors", None)
    if reasons is None:
        return str(error)
    first = reasons()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
