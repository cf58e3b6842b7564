"""One face for the circuit breakers of all libraries: they open after failures in a row, and wait a moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import circuitbreaker
import hyx.circuitbreaker
import hyx.circuitbreaker.exceptions
import interlock
import purgatory
import purgatory.domain.model
import pybreaker
import pyresilience

from squall_resilience import BreakerSettings, CircuitBreaker
from squall_resilience.errors import BreakerOpen

__all__ = ["ASYNC", "BLOCKING", "MAKERS", "WAIT", "Boom", "Face", "open_up"]

WAIT = 0.15
"""Seconds for which they stay open."""

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


class Boom(Exception):  # noqa: N818 - it is what a dependency says
    """What a call fails with."""


class Face:
    """A breaker: `call` and `call_async` go through it; what it refuses raises one of `refusals`."""

    def __init__(
        self,
        it: Any,
        refusals: type[BaseException],
        call: Callable[[Call], object] | None,
        call_async: Callable[[AsyncCall], Awaitable[object]] | None,
    ) -> None:
        self.it, self.refusals = it, refusals
        self.call_async = call_async
        self.call = call or self._in_a_loop

    def _in_a_loop(self, call: Call) -> object:
        async def coroutine() -> object:
            return call()

        assert self.call_async is not None
        return asyncio.run(_awaited(self.call_async(coroutine)))

    def fails(self, times: int = 1) -> None:
        """So many calls that fail; what it refuses is passed over."""

        def failing() -> None:
            raise Boom

        for _ in range(times):
            with contextlib.suppress(Boom, self.refusals):
                self.call(failing)

    def admits(self) -> bool:
        """Whether a call that succeeds gets through."""
        asked: list[bool] = []
        with contextlib.suppress(self.refusals):
            self.call(lambda: asked.append(True))
        return bool(asked)


async def _awaited(what: Awaitable[object]) -> object:
    return await what


def _squall(failures: int, **more: Any) -> Face:
    settings = {"error_rate": None, "wait": WAIT, "jitter": 0.0, "trials": 1, "trials_at_once": 1, "trial_share": 1.0}
    settings |= {"failures_in_a_row": failures} | more.pop("settings", {})
    it = CircuitBreaker("rival", BreakerSettings(**settings), registry=None, **more)
    return _decorated(it, BreakerOpen, it)


def _decorated(it: Any, refusals: type[BaseException], decorate: Callable[[Any], Any]) -> Face:
    @decorate
    def call(what: Call) -> object:
        return what()

    @decorate
    async def call_async(what: AsyncCall) -> object:
        return await what()

    return Face(it, refusals, call, call_async)


def _circuitbreaker(failures: int, **more: Any) -> Face:
    it = circuitbreaker.CircuitBreaker(failures, WAIT, name="rival", **more)
    return _decorated(it, circuitbreaker.CircuitBreakerError, it)


def _pybreaker(failures: int, **more: Any) -> Face:
    it = pybreaker.CircuitBreaker(failures, WAIT, throw_new_error_on_trip=False, **more)
    return Face(it, pybreaker.CircuitBreakerError, it.call, None)


def _hyx(failures: int, **more: Any) -> Face:
    it = hyx.circuitbreaker.consecutive_breaker(
        failure_threshold=failures, recovery_time_secs=WAIT, recovery_threshold=1, **more
    )

    @it
    async def call_async(what: AsyncCall) -> object:
        return await what()

    return Face(it, hyx.circuitbreaker.exceptions.BreakerFailing, None, call_async)


def _purgatory(failures: int, listener: Any = None) -> Face:
    blocking = purgatory.SyncCircuitBreakerFactory(failures, WAIT)
    awaited = purgatory.AsyncCircuitBreakerFactory(failures, WAIT)
    if listener:
        blocking.add_listener(listener)

    def call(what: Call) -> object:
        with blocking.get_breaker("rival"):
            return what()

    async def call_async(what: AsyncCall) -> object:
        async with await awaited.get_breaker("rival"):
            return await what()

    return Face(blocking, purgatory.domain.model.OpenedState, call, call_async)


def _pyresilience(failures: int, listeners: Any = None, **more: Any) -> Face:
    config = pyresilience.CircuitBreakerConfig(
        failure_threshold=failures, recovery_timeout=WAIT, success_threshold=1, **more
    )
    it = pyresilience.resilient(circuit_breaker=config, listeners=listeners)
    return _decorated(it, pyresilience.CircuitOpenError, it)


def _interlock(failures: int, config: Any = None, **more: Any) -> Face:
    settings = {"window_size": failures, "minimum_number_of_calls": failures, "failure_rate_threshold": 1.0}
    settings |= {"wait_duration_in_open": WAIT, "permitted_calls_in_half_open": 1} | (config or {})
    it = interlock.CircuitBreaker(name="rival", config=interlock.Config(**settings), **more)
    return _decorated(it, interlock.CircuitOpenError, it)


MAKERS: dict[str, Callable[..., Face]] = {
    "squall-resilience": _squall,
    "circuitbreaker": _circuitbreaker,
    "pybreaker": _pybreaker,
    "hyx": _hyx,
    "purgatory": _purgatory,
    "pyresilience": _pyresilience,
    "interlock-cb": _interlock,
}
ASYNC = tuple(name for name in MAKERS if name != "pybreaker")
BLOCKING = tuple(name for name in MAKERS if name != "hyx")


def open_up(face: Face, failures: int = 3) -> None:
    """Let it open, and wait until it may try again."""
    face.fails(failures)
    assert not face.admits(), "it did not open"
    time.sleep(WAIT * 1.5)
