"""Time-outs, bulkheads, rate limits, fallbacks and what is rare."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiolimiter
import hyx.bulkhead
import hyx.fallback
import hyx.ratelimit
import hyx.timeout
import interlock
import limits
import limits.storage
import limits.strategies
import pyresilience

from squall_resilience import (
    Bulkhead,
    BulkheadSettings,
    RateLimiter,
    RateLimiterSettings,
    Timeout,
    TimeoutSettings,
    deadline,
)
from tests.rivals.verdicts import NO, YES, Row, Verdict, each, partly, said

__all__ = ["ROWS"]

AsyncCall = Callable[[], Awaitable[object]]


# time-outs


def _squall_timeout(seconds: float) -> Timeout:
    return Timeout("rival", TimeoutSettings(limit=seconds), registry=None)


def _pyresilience_timeout(seconds: float) -> Any:
    return pyresilience.resilient(timeout=pyresilience.TimeoutConfig(seconds=seconds))


def timeout_awaited(library: str) -> Verdict:
    decorate = {
        "squall-resilience": _squall_timeout,
        "hyx": hyx.timeout.timeout,
        "pyresilience": _pyresilience_timeout,
        "interlock-cb": lambda seconds: interlock.Pipeline.builder().timeout(seconds).build(),
    }[library]
    ended: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def run() -> bool:
        began = time.monotonic()
        try:
            await decorate(0.02)(hangs)()
        except Exception:  # noqa: BLE001 - each has its own
            return time.monotonic() - began < 5 and ended == ["cancelled"]
        return False

    return said(asyncio.run(run()))


def timeout_blocking(library: str) -> Verdict:
    """Its caller is back at the limit; what becomes of the call is said in the note."""
    decorate = {
        "squall-resilience": _squall_timeout,
        "pyresilience": _pyresilience_timeout,
        "interlock-cb": interlock.sync_timeout,
    }[library]
    go_on = threading.Event()
    ended = threading.Event()

    def hangs() -> None:
        go_on.wait(0.2 if library == "squall-resilience" else 5)
        ended.set()

    began = time.monotonic()
    try:
        decorate(0.02)(hangs)()
    except Exception:  # noqa: BLE001 - each has its own
        late = time.monotonic() - began > 0.15
        running = not ended.is_set()
        go_on.set()
        if library == "squall-resilience" and late:
            return partly("a late answer is an error, and adapters give the limit to sockets; nothing is left behind")
        return Verdict("yes", "in a thread, which goes on behind the caller") if running else NO
    return NO


def nested_deadline() -> Verdict:
    """What is called with ten seconds of its own has what its caller has left."""
    seen: list[float | None] = []

    async def inner() -> None:
        seen.append(deadline.remaining())
        await asyncio.sleep(30)

    async def outer() -> None:
        await _squall_timeout(10.0)(inner)()

    with contextlib.suppress(TimeoutError):
        asyncio.run(_squall_timeout(0.05)(outer)())
    return said(seen != [None] and all(left is not None and left <= 0.05 for left in seen))


# bulkheads


def queue_is_bounded(library: str) -> Verdict:
    """Two at once, three in line, ten come: five are turned away at once."""

    def build() -> Callable[[AsyncCall], AsyncCall]:
        if library == "squall-resilience":
            return Bulkhead("rival", BulkheadSettings(limit=2, waiting=3, wait=5.0), registry=None)
        if library == "hyx":
            return hyx.bulkhead.bulkhead(max_concurrency=2, max_capacity=5)
        if library == "pyresilience":
            return pyresilience.resilient(bulkhead=pyresilience.BulkheadConfig(max_concurrent=2, max_wait=5.0))
        return interlock.Pipeline.builder().bulkhead(2, max_wait=5.0).build()  # type: ignore[return-value]

    refused = 0

    async def run() -> int:
        go_on = asyncio.Event()
        done = 0

        async def call() -> None:
            nonlocal done
            await go_on.wait()
            done += 1

        guarded = build()(call)

        async def one() -> None:
            nonlocal refused
            try:
                await guarded()
            except Exception:  # noqa: BLE001 - each has its own
                refused += 1

        tasks = [asyncio.ensure_future(one()) for _ in range(10)]
        await asyncio.sleep(0.05)
        at_once = refused
        go_on.set()
        await asyncio.gather(*tasks)
        assert done == 10 - refused, "calls were lost"
        return at_once

    at_once = asyncio.run(run())
    if at_once == 5:
        return YES
    return partly("waiting is bounded in time, not in number") if at_once == 0 else NO


# rate limits


async def _nothing() -> None:
    pass


def _guarded(library: str, waits: float) -> Callable[[], Awaitable[object]]:
    """A call that is let through five times at once; then ten times a second, or next to never where it shall not wait."""
    per = 0.5 if waits else 60.0
    if library == "squall-resilience":
        settings = RateLimiterSettings(rate=5, per=per, burst=5, wait=waits)
        return RateLimiter("rival", settings, registry=None)(_nothing)
    if library == "hyx":
        bucket = hyx.ratelimit.tokenbucket(max_executions=5, per_time_secs=per, bucket_size=5)
        return bucket(_nothing)  # type: ignore[no-any-return]
    config = pyresilience.RateLimiterConfig(max_calls=5, period=per, max_wait=waits)
    return pyresilience.resilient(rate_limiter=config)(_nothing)


def _limiter(library: str, waits: float = 0.0) -> Callable[[], Awaitable[bool]]:
    """Whether one more is let through."""
    if library == "limits":
        limiter = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
        item = limits.parse("5/minute")

        async def call() -> bool:
            return limiter.hit(item, "key")

    elif library == "aiolimiter":
        bucket = aiolimiter.AsyncLimiter(5, 0.5 if waits else 60)

        async def call() -> bool:
            if not waits and not bucket.has_capacity():
                return False
            await bucket.acquire()
            return True

    else:
        guarded = _guarded(library, waits)

        async def call() -> bool:
            try:
                await guarded()
            except Exception:  # noqa: BLE001 - each has its own
                return False
            return True

    return call


def limits_a_rate(library: str) -> Verdict:
    async def run() -> list[bool]:
        call = _limiter(library)
        return [await call() for _ in range(7)]

    return said(asyncio.run(run()) == [True] * 5 + [False] * 2)


def waits_for_its_turn(library: str) -> Verdict:
    """The sixth caller of five a half second is let through a tenth of a second later."""

    async def run() -> bool:
        call = _limiter(library, waits=2.0)
        began = time.monotonic()
        passed = [await call() for _ in range(6)]
        return all(passed) and time.monotonic() - began > 0.05

    return said(asyncio.run(run()))


def _by_key(library: str, keys_max: int = 1000) -> Callable[[str], bool]:
    if library == "limits":
        limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
        item = limits.parse("1/day")
        return lambda key: limiter.hit(item, key)
    ours = RateLimiter("rival", RateLimiterSettings(rate=1, per=86_400.0, keys_max=keys_max), registry=None)

    def take(key: str) -> bool:
        try:
            ours.take(key)
        except Exception:  # noqa: BLE001 - it is refused
            return False
        return True

    return take


def per_key(library: str) -> Verdict:
    take = _by_key(library)
    return said([take("a"), take("b"), take("a"), take("b")] == [True, True, False, False])


def bounded_memory(library: str) -> Verdict:
    """The second half of 100,000 keys takes (nearly) no more memory."""
    take = _by_key(library)
    for number in range(50_000):
        take(str(number))
    half = _resident()
    for number in range(50_000, 100_000):
        take(str(number))
    return said(_resident() - half < 3_000_000)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


ROWS = [
    Row(
        "time-out of an awaited call",
        each(timeout_awaited, "squall-resilience", "hyx", "pyresilience", "interlock-cb"),
        ("maxdelay",),
        "timeout",
    ),
    Row(
        "time-out of a blocking call",
        each(timeout_blocking, "squall-resilience", "pyresilience", "interlock-cb"),
        ("thread",),
        "timeout",
    ),
    Row(
        "a deadline that nested calls inherit",
        {"squall-resilience": nested_deadline},
        ("deadline", "remaining", "timeleft"),
        "timeout",
        {"probes_remaining": "interlock: a number of calls"},
    ),
    Row(
        "bulkhead with a bounded line",
        each(queue_is_bounded, "squall-resilience", "hyx", "pyresilience", "interlock-cb"),
        kind="bulkhead",
    ),
    Row(
        "limits a rate",
        each(limits_a_rate, "squall-resilience", "hyx", "pyresilience", "limits", "aiolimiter"),
        kind="rate limit",
    ),
    Row(
        "… and waits for its turn",
        each(waits_for_its_turn, "squall-resilience", "hyx", "pyresilience", "aiolimiter"),
        ("wait", "block"),
        "rate limit",
    ),
    Row(
        "… for each key",
        each(per_key, "squall-resilience", "limits"),
        ("key", "tenant", "identif"),
        "rate limit",
        {
            "make_key": "pyresilience: of its cache",
            "get_key_lock": "pyresilience: of its cache",
            "key": "pyresilience: of its cache",
            "get_async_key_lock": "pyresilience: of its cache",
        },
    ),
    Row(
        "… with bounded memory for the keys (100,000)",
        each(bounded_memory, "squall-resilience", "limits"),
        ("key", "tenant", "identif"),
        "rate limit",
        {
            "make_key": "pyresilience: of its cache",
            "get_key_lock": "pyresilience: of its cache",
            "key": "pyresilience: of its cache",
            "get_async_key_lock": "pyresilience: of its cache",
        },
    ),
]
