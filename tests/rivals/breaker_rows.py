"""What circuit breakers do, seen by making them do it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import interlock
import pybreaker
import pyresilience

from squall_resilience.errors import BreakerOpen
from tests.rivals.breakers import ASYNC, MAKERS, WAIT, Boom, Face, open_up
from tests.rivals.verdicts import ABSENT, NO, YES, Row, Verdict, partly, said

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ROWS"]

KIND = "breaker"
CALLERS = 30


def each(
    check: Callable[[str], Verdict], libraries: tuple[str, ...] = tuple(MAKERS)
) -> dict[str, Callable[[], Verdict]]:
    """The same check on the breakers of all these libraries."""
    return {library: partial(check, library) for library in libraries}


def opens_on_failures_in_a_row(library: str) -> Verdict:
    face = MAKERS[library](3)
    face.fails(2)
    between = face.admits()
    face.fails(2)
    after_success = face.admits()
    face.fails(3)
    return said(between and after_success and not face.admits())


def _opens(face: Face, outcomes: list[bool]) -> bool:
    for good in outcomes:
        if good and not face.admits():
            return True
        if not good:
            face.fails()
    return not face.admits()


MIXED = [False, True] * 50
"""Half of the calls fail, never two in a row."""


def _rate(library: str) -> Face:
    if library == "squall-resilience":
        clock = iter(x / 50 for x in range(10_000))
        rate = {"error_rate": 0.4, "period": 1.0, "periods": 1, "minimum_calls": 5, "wait": 1000.0}
        return MAKERS[library](100, settings={"failures_in_a_row": None, **rate}, clock=lambda: next(clock))
    if library == "pyresilience":
        return MAKERS[library](100, sliding_window_size=10, failure_rate_threshold=0.4)
    if library == "interlock-cb":
        return MAKERS[library](10, config={"failure_rate_threshold": 0.4})
    return MAKERS[library](5)


def opens_on_a_rate(library: str) -> Verdict:
    return said(_opens(_rate(library), MIXED))


def rate_over_time(library: str) -> Verdict:
    """Calls of long ago must not count: ten bad ones, a pause, then good ones with one bad one."""
    if library == "squall-resilience":
        return opens_on_a_rate(library)
    now = [0.0]
    config = {"failure_rate_threshold": 0.5, "window_type": interlock.WindowType.TIME_BASED, "window_size": 10}

    class Clock:
        def monotonic(self) -> float:
            return now[0]

    face = MAKERS[library](8, config=config, clock=Clock())
    face.fails(7)
    now[0] = 60.0
    face.fails(1)
    forgot = face.admits()
    return said(forgot and _opens(face, MIXED))


def rate_over_calls(library: str) -> Verdict:
    """However long ago the calls were."""
    if library == "squall-resilience":
        now = [0.0]
        settings = {
            "failures_in_a_row": None,
            "error_rate": 0.4,
            "period": 1.0,
            "periods": 1,
            "minimum_calls": 5,
            "wait": 9.9e3,
        }
        face = MAKERS[library](100, settings=settings, clock=lambda: now[0])
        for _ in range(20):
            now[0] += 10.0
            face.fails()
        return said(not face.admits(), "its periods are times")
    return opens_on_a_rate(library)


def several_periods() -> Verdict:
    now = [0.0]
    settings = {
        "failures_in_a_row": None,
        "error_rate": 0.4,
        "period": 10.0,
        "periods": 3,
        "minimum_calls": 5,
        "wait": 1e3,
    }
    face = MAKERS["squall-resilience"](100, settings=settings, clock=lambda: now[0])

    def period() -> bool:
        for good in (False, True) * 10:
            now[0] += 0.5
            if good:
                face.admits()
            else:
                face.fails()
        now[0] += 0.1
        return face.admits()

    return said([period() for _ in range(3)] == [True, True, False])


def on_p95() -> Verdict:
    """One call in ten is slow, none fails."""
    now = [0.0]
    settings = {"failures_in_a_row": None, "latency": 0.3, "minimum_calls": 20}
    face = MAKERS["squall-resilience"](100, settings=settings, clock=lambda: now[0])

    def slow(seconds: float) -> None:
        now[0] += seconds

    with contextlib.suppress(BreakerOpen):
        for number in range(100):
            face.call(partial(slow, 1.0 if number % 10 == 0 else 0.01))
        return NO
    return YES


def on_slow_calls(library: str) -> Verdict:
    """All calls are slow, none fails."""
    if library == "squall-resilience":
        face = MAKERS[library](100, settings={"failures_in_a_row": 10, "slow_call": 0.001})
    elif library == "pyresilience":
        face = MAKERS[library](100, sliding_window_size=10, slow_call_duration=0.001, slow_call_rate_threshold=0.9)
    else:
        config = {"slow_call_duration_threshold": 0.001, "slow_call_rate_threshold": 0.9}
        face = MAKERS[library](10, config=config)
    for _ in range(10):
        face.call(lambda: time.sleep(0.002))
    if face.admits():
        return NO
    if library == "squall-resilience":
        return partly("a slow call counts as a failure; slow calls have no rate of their own (but see the row above)")
    return YES


def bounded_half_open(library: str) -> Verdict:
    """Of callers that come at once, one is let through, not all."""
    face = MAKERS[library](3)
    open_up(face)
    most = _most_at_once(face) if library in ASYNC else _most_threads_at_once(face)
    if library == "pybreaker":
        return said(most == 1, "each call holds the breaker's lock to its end, so calls through it run one by one")
    return said(most == 1)


def _most_at_once(face: Face) -> int:
    under_way = most = 0

    async def trial() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1

    async def one() -> None:
        assert face.call_async is not None
        with contextlib.suppress(face.refusals):
            await face.call_async(trial)

    async def all_at_once() -> None:
        await asyncio.gather(*[one() for _ in range(CALLERS)])

    asyncio.run(all_at_once())
    return most


def _most_threads_at_once(face: Face, callers: int = 5) -> int:
    under_way = most = 0
    lock = threading.Lock()

    def trial() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1

    def one() -> None:
        with contextlib.suppress(face.refusals):
            face.call(trial)

    threads = [threading.Thread(target=one) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    return most


def side_by_side(library: str) -> Verdict:
    """Two slow calls through a closed breaker run at the same time."""
    face = MAKERS[library](3)
    return said((_most_at_once(face) if library in ASYNC else _most_threads_at_once(face)) > 1)


def admits_a_share() -> Verdict:
    """Of fifty callers while it is half-open, five."""
    settings = {"trial_share": 0.1, "trials": 10, "trials_at_once": 10}
    face = MAKERS["squall-resilience"](3, settings=settings)
    open_up(face)
    return said([face.admits() for _ in range(50)].count(True) == 5)


def forced(library: str) -> Verdict:
    """Open although nothing fails, closed although everything does, for as long as somebody wants."""
    face = MAKERS[library](3)
    if library == "pyresilience":
        it = pyresilience.CircuitBreaker(pyresilience.CircuitBreakerConfig(3, WAIT))
        it.force_open()
        shut = not it.allow_request()
        time.sleep(WAIT * 1.5)
        assert shut, "it was forced open"
        assert it.allow_request(), "it stays open now: say so"
        return partly("open until the wait is over; closed until failures open it; not on what the decorator makes")
    if library == "pybreaker":
        face.it.open()
        shut = not face.admits()
        time.sleep(WAIT * 1.5)
        assert shut, "it was opened"
        assert face.admits(), "it stays open now: say so"
        return partly("open until the wait is over; closed until failures open it")
    face.it.force_open()
    time.sleep(WAIT * 1.5)
    shut = not face.admits()
    close = face.it.force_closed if library == "squall-resilience" else face.it.disable
    close()
    face.fails(10)
    return said(shut and face.admits())


def shadow() -> Verdict:
    """It counts, and refuses nothing."""
    face = MAKERS["interlock-cb"](3)
    face.it.metrics_only()
    face.fails(5)
    return said(face.admits() and face.it.snapshot().failed_calls > 0)


def our_shadow() -> Verdict:
    face = MAKERS["squall-resilience"](3)
    face.it.force_closed()
    face.fails(5)
    return said(face.admits() and face.it.read().failures == 5)


class _PybreakerListener(pybreaker.CircuitBreakerListener):
    def __init__(self, told: Callable[[object], None]) -> None:
        self.told = told

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:  # noqa: ARG002 - pybreaker's names
        self.told(new_state)


class _InterlockListener(interlock.LoggingEventListener):
    def __init__(self, told: Callable[[object], None]) -> None:
        super().__init__()
        self.told = told

    def on_state_change(self, **what: Any) -> None:
        self.told(what)


def _with_listener(library: str, told: Callable[[object], None]) -> Face:
    def of_kind(word: str) -> Callable[..., None]:
        return lambda *what: told(what) if word in repr(what).lower() else None

    make = MAKERS[library]
    return {
        "squall-resilience": lambda: make(3, listeners=[of_kind("statechanged")]),
        "pybreaker": lambda: make(3, listeners=[_PybreakerListener(told)]),
        "purgatory": lambda: make(3, listener=of_kind("state_changed")),
        "pyresilience": lambda: make(3, listeners=[of_kind("circuit_open")]),
        "interlock-cb": lambda: make(3, listener=_InterlockListener(told)),
    }[library]()


LISTENING = ("squall-resilience", "pybreaker", "purgatory", "pyresilience", "interlock-cb")


def tells(library: str) -> Verdict:
    told: list[object] = []
    _with_listener(library, told.append).fails(3)
    return said(bool(told))


def listener_may_raise(library: str) -> Verdict:
    """The caller gets the call's own failure, not the listener's."""

    def broken(_: object) -> None:
        raise ZeroDivisionError

    face = _with_listener(library, broken)
    try:
        face.fails(3)
    except ZeroDivisionError:
        return NO
    return YES


def _cancelled(face: Face) -> None:
    async def run() -> None:
        async def hangs() -> None:
            await asyncio.sleep(30)

        assert face.call_async is not None
        task = asyncio.ensure_future(face.call_async(hangs))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())


async def _fail(face: Face, *, good: bool = False) -> bool:
    asked: list[bool] = []

    async def call() -> None:
        asked.append(True)
        if not good:
            raise Boom

    assert face.call_async is not None
    with contextlib.suppress(Boom, face.refusals):
        await face.call_async(call)
    return bool(asked)


def cancelled_trial(library: str) -> Verdict:
    """The trial of a half-open breaker is cancelled: the next caller is the trial, and what it says decides."""

    def after_a_cancelled_trial() -> Face:
        face = MAKERS[library](3)
        for _ in range(3):
            asyncio.run(_fail(face))
        assert not asyncio.run(_fail(face)), "it did not open"
        time.sleep(WAIT * 1.5)
        _cancelled(face)
        return face

    if not asyncio.run(_fail(after_a_cancelled_trial(), good=True)):
        return Verdict("no", "it counts as a failed trial: the breaker opens again")
    still_down = after_a_cancelled_trial()
    asyncio.run(_fail(still_down))
    if asyncio.run(_fail(still_down, good=True)):
        return Verdict("no", "it counts as a good trial: the breaker closes")
    return YES


def cancelled_says_nothing(library: str) -> Verdict:
    """Two failures, a cancellation, a failure: three failures in a row, with nothing between."""
    face = MAKERS[library](3)
    for _ in range(2):
        asyncio.run(_fail(face))
    _cancelled(face)
    if not asyncio.run(_fail(face)):
        return Verdict("no", "counts as a failure")
    return YES if not asyncio.run(_fail(face)) else Verdict("no", "counts as a success")


def blocking_only() -> Verdict:
    """Coroutine functions are not for it: what they raise is not seen."""
    breaker = pybreaker.CircuitBreaker(1, WAIT)

    @breaker
    async def fails() -> None:
        raise Boom

    for _ in range(3):
        with contextlib.suppress(Boom):
            asyncio.run(fails())
    return ABSENT if breaker.current_state == pybreaker.STATE_CLOSED else NO


ROWS = [
    Row("opens on failures in a row", each(opens_on_failures_in_a_row), kind=KIND),
    Row("opens on the error rate", each(opens_on_a_rate), kind=KIND),
    Row("… of a time", each(rate_over_time, ("squall-resilience", "interlock-cb")), ("timebased", "windowtype"), KIND),
    Row(
        "… of the last calls",
        each(rate_over_calls, ("squall-resilience", "pyresilience", "interlock-cb")),
        ("window", "lastcalls"),
        KIND,
    ),
    Row("… in several periods in a row", {"squall-resilience": several_periods}, ("periods", "evaluation"), KIND),
    Row(
        "opens on the 95th percentile of the latency",
        {"squall-resilience": on_p95},
        ("latency", "percentile", "p95", "quantile"),
        KIND,
        {"get_latencies": "pyresilience: what a collector of events has seen, for reports"},
    ),
    Row(
        "opens on slow calls",
        each(on_slow_calls, ("squall-resilience", "pyresilience", "interlock-cb")),
        ("slow", "duration"),
        KIND,
        {"max_duration": "hyx: of its time-out", "MaxDurationExceeded": "hyx: of its time-out"},
    ),
    Row("calls run side by side while it is closed", each(side_by_side), kind=KIND),
    Row("half-open: a bounded number at once", each(bounded_half_open), kind=KIND),
    Row(
        "half-open: a share of the calls",
        {"squall-resilience": admits_a_share},
        ("share", "percent", "fraction"),
        KIND,
        {"shared": "interlock: a module, state shared between processes", "SharedState": "interlock: the same"},
    ),
    Row(
        "half-open: a cancelled trial gives its place back",
        {**each(cancelled_trial, ASYNC), "pybreaker": blocking_only},
        kind=KIND,
    ),
    Row(
        "a cancelled call counts as nothing",
        {**each(cancelled_says_nothing, ASYNC), "pybreaker": blocking_only},
        kind=KIND,
    ),
    Row(
        "forced open, forced closed",
        each(forced, ("squall-resilience", "pybreaker", "pyresilience", "interlock-cb")),
        ("force", "disable"),
        KIND,
    ),
    Row(
        "counts without refusing (shadow mode)",
        {"squall-resilience": our_shadow, "interlock-cb": shadow},
        ("metricsonly", "shadow", "dryrun", "forceclosed"),
        KIND,
    ),
    Row("tells of state changes", each(tells, LISTENING), ("listener", "hook", "callback", "onstate"), KIND),
    Row("a listener that raises breaks no call", each(listener_may_raise, LISTENING), ("listener", "onstate"), KIND),
]
