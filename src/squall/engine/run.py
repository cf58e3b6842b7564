"""One experiment from define to recover.

General layout: `Run.execute` is the sequence; each stage is a method; `_Safety` holds what must be ended in any case
(journal, guardian, steps in force) and ends it; `watchdog` says what may end a run early.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from squall.actions.guardian_cgroup import GuardianCgroup, place_for_guardian
from squall.analysis import AbortWatch, ClosingWatch, Facts, HealWatch, Timeline, check_steady_state
from squall.analysis.measures import ceiling_measures
from squall.engine.announcing import planned_events, run_started
from squall.engine.clock import Clock, SystemClock
from squall.engine.conclusion import Conclusion, Outcome, Times, residue_of
from squall.engine.control import Control
from squall.engine.derive import derived_expectations
from squall.engine.log import EventLog
from squall.engine.measuring import Measuring
from squall.engine.planning import PlannedFault, plan_experiment
from squall.engine.stages import Driver
from squall.engine.tracing import marks_of
from squall.engine.watchdog import Ending, Watchdog
from squall.errors import ActionFailed, CannotInject, Halted, InputError, SquallError
from squall.events import (
    AbortTriggered,
    Event,
    Interrupted,
    LoadBehind,
    Problem,
    RunFinished,
    Stage,
    StageEntered,
    SteadyStateChecked,
)
from squall.experiment.document import dump_experiment
from squall.experiment.patterns import probes_of
from squall.experiment.series import LOAD_SERIES, series_of
from squall.probes.load import LoadProcess
from squall.probes.prober import Prober
from squall.probes.traceparent import RunTrace, Tracing
from squall.recovery import Executor, Guard, Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from squall.engine.log import Listener
    from squall.experiment.model import Experiment
    from squall.injectors import Chooser
    from squall.probes.samples import Sample
    from squall.recovery import RunFolder, State
    from squall.units import Duration

__all__ = ["Outcome", "Run"]

_GRACE_S = 3.0
"""How much longer than its stages need an engine may take before its guardian ends it."""
_PLANNING_S = 30.0
_SETTLE_S = 0.05
_JUDGING_S = 600.0
"""Nothing is in force any more when the samples are judged."""


class Run:
    """One run of one experiment. Make it, `execute` it once; `interrupt` ends it early from a signal handler.

    Args:
        experiment: What to do; probes are derived from its targets when it measures nothing.
        state: Where the run's folder goes.
        chooser: Decides the mechanism of each fault.
        listeners: Called with every event as it happens.
        on_samples: Called with every batch of samples as it comes.
        tracing: Where it is given, the run is a trace, and its requests carry that on.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        state: State,
        chooser: Chooser,
        listeners: Sequence[Listener] = (),
        on_samples: Sequence[Callable[[list[Sample]], None]] = (),
        tracing: Tracing | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.experiment, self._state, self._chooser = experiment, state, chooser
        self._listeners, self._clock = tuple(listeners), clock or SystemClock()
        self._times, self._facts = Times(), Facts()
        self._stage: Stage = "define"
        self._ending = Ending()
        self._log: EventLog | None = None
        self._samples_to: list[Callable[[list[Sample]], None]] = [*on_samples]
        self._tracing = tracing
        self._trace: RunTrace | None = None
        self.distance = 0.0
        """How near the abort ceiling is: 0 far, 1 at it."""

    # --- the sequence

    async def execute(self) -> Outcome:
        """Run it to the end. Raises InputError or CannotInject only while nothing has been touched."""
        if self._state.halted:
            raise Halted(f"squall is halted ({self._state.halt_flag}): nothing new starts until `squall halt --off`")
        run = self._state.new_run(self.experiment.name)
        self._trace = RunTrace.of(run.id, self._tracing.caller) if self._tracing is not None else None
        try:
            planned = plan_experiment(self.experiment, self._chooser, run)
            self._add_derived_expectations(planned)
            self._state.mark_open(run)
            journal = Journal.create(run.journal, run.id, self.experiment.name)
        except BaseException as error:
            _forget(self._state, run)
            if isinstance(error, OSError):
                raise CannotInject(f"the run's files cannot be written below {run.path}: {error.strerror}") from error
            raise
        executor = Executor(self._state, run, journal)
        try:
            executor.check(action for fault in planned for action in (*fault.setup, *fault.actions))
            guard = await asyncio.to_thread(Guard.start, self._state, run, journal)
        except BaseException as error:
            executor.close()
            _forget(self._state, run)
            if isinstance(error, OSError):
                raise CannotInject(f"the guardian cannot be started: {error.strerror}; nothing was injected") from error
            raise
        try:
            return await self._guarded(run, planned, executor, guard)
        except OSError as error:
            raise CannotInject(f"the run's files cannot be written below {run.path}: {error.strerror}") from error
        finally:
            await asyncio.to_thread(executor.revert_all)
            executor.close(guard.farewell)  # what could not be undone stays in the journal, for `squall recover`

    def _add_derived_expectations(self, planned: list[PlannedFault]) -> None:
        if not self.experiment.steady_state and self.experiment.load is None:
            derived = derived_expectations(planned)
            self.experiment = self.experiment.model_copy(update={"steady_state": derived})

    async def _guarded(self, run: RunFolder, planned: list[PlannedFault], executor: Executor, guard: Guard) -> Outcome:
        log = EventLog(run.events, run.id, self._clock, self._listeners)
        driver = Driver(run, self.experiment.seed, self._chooser, executor, log, self._clock, self._ending.asked)
        watchdog = Watchdog(self._ending, guard, self._state, log, self._clock)
        watchdog.allow(_PLANNING_S + self.experiment.baseline.seconds)
        control = Control(run.control, self._answer(run, driver))
        self._log = log
        beating = asyncio.create_task(watchdog.watch())
        try:
            with contextlib.suppress(OSError):
                run.document.write_text(dump_experiment(self.experiment))
            await control.start()
            log.emit(run_started(self.experiment, self._trace, self._tracing.url if self._tracing else ""))
            self._enter("define", int(self.experiment.baseline))
            for event in planned_events(planned):
                log.emit(event)
            return await self._stages(run, planned, executor, driver, watchdog, guard)
        finally:
            await control.stop()
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            log.close()

    async def _stages(
        self,
        run: RunFolder,
        planned: list[PlannedFault],
        executor: Executor,
        driver: Driver,
        watchdog: Watchdog,
        guard: Guard,
    ) -> Outcome:
        abort = AbortWatch(ceiling_measures(self.experiment), self.experiment.abort)
        error: SquallError | None = None
        measuring: Measuring | None = None
        try:
            await self._give_guardian_a_place(run, guard, executor)
            await driver.set_up(planned)
            prober, load = self._sensors()
            measuring = Measuring(run.samples, [*prober.series(), *([LOAD_SERIES] if load else [])], abort)
            self._samples_to.append(measuring.take)
            async with prober, _maybe(load):
                seeing = asyncio.create_task(self._see(measuring, abort, driver, load))
                try:
                    if await self._baseline(measuring, watchdog, prober):
                        await self._inject_and_monitor(driver, abort, watchdog)
                        await self._analyse()
                    await self._recover(executor, driver, watchdog, load)
                finally:
                    seeing.cancel()
                    await asyncio.gather(seeing, return_exceptions=True)
                if load is not None:
                    await self._settle_load(load)
        except (SquallError, OSError) as problem:
            error = problem if isinstance(problem, SquallError) else CannotInject(str(problem))
        except BaseExceptionGroup as group:
            error = _squall_error(group)
        self._enter("recover") if self._stage != "recover" else None
        driver.tell(await asyncio.to_thread(executor.revert_all))
        await asyncio.to_thread(driver.dismiss)
        if measuring is not None:
            measuring.close()
        watchdog.allow(_JUDGING_S)
        return await self._conclude(run, executor, error, driver)

    # --- define

    async def _give_guardian_a_place(self, run: RunFolder, guard: Guard, executor: Executor) -> None:
        folder = place_for_guardian(run.id)
        if folder is not None:
            with contextlib.suppress(ActionFailed):  # a session of its own is what it has then
                await asyncio.to_thread(executor.apply, "guardian", GuardianCgroup(folder, guard.identity))

    def _sensors(self) -> tuple[Prober, LoadProcess | None]:
        series = series_of(self.experiment)
        probes = [one for one in self.experiment.steady_state if series[one.name] == one.name]
        marks = marks_of(self.experiment, self._trace)
        prober = Prober([*probes, *probes_of(self.experiment.expect).values()], self._take, marks)
        load = None
        if self.experiment.load is not None:
            load = LoadProcess(
                self.experiment.load, seed=self.experiment.seed, on_samples=self._take, name=LOAD_SERIES,
                marks=marks.get(LOAD_SERIES),
            )  # fmt: skip
        return prober, load

    def _take(self, samples: list[Sample]) -> None:
        for reader in self._samples_to:
            reader(samples)

    async def _see(self, measuring: Measuring, abort: AbortWatch, driver: Driver, load: LoadProcess | None) -> None:
        """What is looked at while the run goes on; a run that is not looked at must not go on."""
        try:
            await self._keep_looking(measuring, abort, driver, load)
        except Exception as error:
            self._ending.ask("error", f"the run can no longer be watched: {type(error).__name__}: {error}")
            raise

    async def _keep_looking(
        self, measuring: Measuring, abort: AbortWatch, driver: Driver, load: LoadProcess | None
    ) -> None:
        """The ceiling, the disk, the seconds, hits and leases."""
        tick = 0
        while True:
            await asyncio.sleep(0.1)
            now_ns, tick = self._clock.mono_ns(), tick + 1
            measuring.flush()
            if measuring.failure is not None:
                self._ending.ask("error", f"the samples cannot be written: {measuring.failure.strerror}")
            if self._stage == "monitor" and (decision := abort.check(now_ns, _waiting(load))) is not None:
                self._ending.ask("ceiling", decision.reason, dict(decision.evidence))
            self.distance = abort.distance() if self._stage == "monitor" else 0.0
            for window in measuring.window(now_ns):
                self._emit(window)
            if tick % 10 == 0 and self._stage == "monitor":
                await driver.publish_hits()
                lapsed = await driver.lapsed()
                if lapsed is not None and not self._facts.lease_lapsed:
                    self._facts = replace(self._facts, lease_lapsed=lapsed)
                    self._ending.ask("error", lapsed)
            if load is not None and load.behind and not self._facts.load_behind:
                self._facts = replace(self._facts, load_behind=load.behind)

    async def _baseline(self, measuring: Measuring, watchdog: Watchdog, prober: Prober) -> bool:
        """Watch the system before anything is injected; False when it is not steady, or the run is to end."""
        watchdog.allow(self.experiment.baseline.seconds + _GRACE_S)
        self._times.baseline_ns = self._clock.mono_ns()
        if await self._ending.within(self.experiment.baseline.seconds):
            return False
        if self.experiment.baseline:
            await asyncio.sleep(_SETTLE_S)  # for the answers to what was just sent
        now_ns = self._clock.mono_ns()
        series = await asyncio.to_thread(measuring.so_far)
        timeline = Timeline(self._times.baseline_ns, (), 0, now_ns)
        steady = await asyncio.to_thread(check_steady_state, self.experiment, series, timeline)
        detail = steady.detail
        if not steady.holds:
            why = {
                one.name: prober.last_failure(one.name)
                for one in self.experiment.steady_state
                if one.name in prober.missed
            }
            detail += "".join(f"; {name}: {reason}" for name, reason in why.items() if reason)
            self._facts = replace(self._facts, not_steady=detail)
        self._emit(SteadyStateChecked("before", steady.holds, detail))
        return steady.holds

    # --- inject, monitor, analyse

    async def _inject_and_monitor(self, driver: Driver, abort: AbortWatch, watchdog: Watchdog) -> None:
        self._enter("inject")
        watchdog.allow(self.experiment.duration.seconds + _GRACE_S)
        self._times.fault_ns = self._clock.mono_ns()
        abort.fault_starts(self._times.fault_ns)
        self._enter("monitor", int(self.experiment.duration))
        await driver.drive(self._times.fault_ns)

    async def _analyse(self) -> None:
        self._enter("analyse")
        if self._ending.cause is None:
            return
        if self._ending.cause == "interrupted":
            self._emit(Interrupted(self._ending.reason))
        else:
            self._emit(AbortTriggered(self._ending.cause, self._ending.reason, self._ending.evidence))

    # --- recover

    async def _recover(self, executor: Executor, driver: Driver, watchdog: Watchdog, load: LoadProcess | None) -> None:
        if self._ending.cause is not None and self._times.fault_ns == 0:
            await self._analyse()  # it was ended before anything was injected
        heals = bool(self._times.fault_ns) and self._ending.cause in (None, "ceiling", "stopped")
        self._enter("recover", int(self.experiment.recovery.within) if heals else 0)
        heal_s = max([self.experiment.recovery.within.seconds, *(one.seconds for one in _closings(self.experiment))])
        watchdog.allow(heal_s + 30.0)
        setup = {entry.number for entry in driver.setup}
        mine = [entry for entry in executor.open_entries if entry.number not in setup and entry.fault != "guardian"]
        driver.tell(await asyncio.to_thread(executor.revert, mine))
        self._times.recovered_ns = self._clock.mono_ns()
        if heals:
            await self._watch_healing(load)

    async def _watch_healing(self, load: LoadProcess | None) -> None:
        watch = HealWatch(self.experiment, self._fault_end_ns())
        closing = ClosingWatch(self.experiment, self._fault_end_ns())

        def feed(samples: list[Sample]) -> None:
            for sample in samples:
                watch.add(sample)
                closing.add(sample)

        self._samples_to.append(feed)
        before = self._ending.cause
        while True:
            heal = watch.check(self._clock.mono_ns(), _waiting(load))
            if (heal.done and closing.done(self._clock.mono_ns())) or self._ending.cause != before:
                break
            await asyncio.sleep(0.1)
        self._emit(SteadyStateChecked("after", heal.state == "healed", heal.detail))

    def _fault_end_ns(self) -> int:
        return self._times.recovered_ns

    async def _settle_load(self, load: LoadProcess) -> None:
        report = await load.stop()
        if load.behind:
            self._facts = replace(self._facts, load_behind=load.behind)
            self._emit(LoadBehind(report.late_p99_ns, report.unsent, load.behind))

    async def _conclude(self, run: RunFolder, executor: Executor, error: SquallError | None, driver: Driver) -> Outcome:
        self._times.end_ns = self._clock.mono_ns()
        if error is not None:
            self._emit(Problem(self._stage, str(error)))
        conclusion = Conclusion(self._times, self._ending, self._facts, error, driver.faults)
        # in a thread: a long run has millions of samples, and the engine must go on beating meanwhile
        verdict = await asyncio.to_thread(conclusion.verdict, self.experiment, run)
        self._emit(verdict)
        residue = residue_of(executor.open_entries)
        status = conclusion.exit_status(verdict.verdict, residue)
        self._emit(RunFinished(status, list(residue)))
        return Outcome(run, verdict.verdict, status, verdict.reason, residue)

    # --- from outside

    def interrupt(self, signal_name: str) -> None:
        """End the run: it recovers and reports; calling it again changes nothing."""
        self._ending.ask("interrupted", signal_name)

    def status(self) -> dict[str, Any]:
        """Where the run is, as `squall status` shows it."""
        now_ns = self._clock.mono_ns()
        return {
            "name": self.experiment.name, "stage": self._stage, "pid": os.getpid(),
            "baseline_ns": self._times.baseline_ns, "fault_ns": self._times.fault_ns, "now_ns": now_ns,
            "ends_in_s": max(0.0, (self._times.fault_ns + self.experiment.duration - now_ns) / 1e9) if self._times.fault_ns else None,
            "distance": self.distance, "ending": self._ending.cause,
        }  # fmt: skip

    def _answer(self, run: RunFolder, driver: Driver) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            match request.get("op"):
                case "ping":
                    return {"run": run.id}
                case "status":
                    faults = [
                        {"fault": one.planned.id, "on": bool(one.on_since_ns), "hits": one.hits}
                        for one in driver.faults
                    ]
                    return {"run": run.id, **self.status(), "faults": faults}
                case "stop":
                    self._ending.ask(
                        "halted" if request.get("halt") else "stopped", str(request.get("reason", "squall stop"))
                    )
                    return {"run": run.id, "stopping": True}
                case "adjust":
                    return {
                        "run": run.id,
                        "parameters": await driver.adjust(str(request.get("fault")), dict(request["parameters"])),
                    }
                case other:
                    raise InputError(f"a run cannot {other!r}: it can ping, status, stop, adjust")

        return answer

    def _enter(self, stage: Stage, expected_ns: int = 0) -> None:
        self._stage = stage
        self._emit(StageEntered(stage, expected_ns))

    def _emit(self, event: Event) -> None:
        if self._log is not None:
            self._log.emit(event)


def _forget(state: State, run: RunFolder) -> None:
    """Remove a run's folder that holds nothing worth keeping: nothing was injected."""
    with contextlib.suppress(OSError):
        state.mark_closed(run)
    for name in ("journal.jsonl", "guardian.log"):
        with contextlib.suppress(OSError):
            (run.path / name).unlink()
    with contextlib.suppress(OSError):
        run.path.rmdir()


def _closings(experiment: Experiment) -> list[Duration]:
    """How long breakers may take to close."""
    breakers = [one.breaker for one in experiment.expect if one.breaker is not None]
    return [one.closes.within for one in breakers if one.closes is not None]


def _waiting(load: LoadProcess | None) -> dict[str, tuple[int, ...]]:
    """The requests that have no answer yet: a stall is seen while it lasts, not when its time-outs come in."""
    return {LOAD_SERIES: load.report.waiting} if load is not None else {}


@contextlib.asynccontextmanager
async def _maybe(load: LoadProcess | None) -> Any:
    if load is None:
        yield
        return
    async with load:
        yield


def _squall_error(group: BaseExceptionGroup[BaseException]) -> SquallError:
    """The first error of Squall's own, or of a disk's, in a group; what is neither goes up."""
    mine = group.subgroup((SquallError, OSError))
    if mine is None:
        raise group
    first: BaseException = mine
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, SquallError) else CannotInject(str(first))
