"""Substitutes for an answer, and patterns that hardly any library has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import hyx.bulkhead
import hyx.fallback
import hyx.ratelimit
import hyx.timeout
import interlock
import pyresilience
import tenacity

from squall_resilience import (
    Fallback,
    FallbackSettings,
    Group,
    Hedge,
    HedgeSettings,
)
from squall_resilience.adaptive import AdaptiveConcurrency, AdaptiveSettings
from tests.rivals.breakers import MAKERS, Boom
from tests.rivals.verdicts import NO, Row, Verdict, each, partly, said

__all__ = ["ROWS"]


def answers_instead(library: str) -> Verdict:
    """A call that fails gives something else."""

    def fails() -> object:
        raise Boom

    async def fails_too() -> object:
        raise Boom

    if library == "hyx":

        async def handler(*_: object, **__: object) -> str:
            return "instead"

        return said(asyncio.run(hyx.fallback.fallback(handler, on=Boom)(fails_too)()) == "instead")
    if library == "circuitbreaker":
        face = MAKERS[library](2, fallback_function=lambda *_: "instead")
        with contextlib.suppress(Boom):
            return said(face.call(fails) == "instead")
        face.fails(2)
        assert face.call(fails) == "instead", "it has none at all"
        return partly("while the breaker is open; a call that fails still raises")
    if library == "tenacity":
        decorate: Any = tenacity.retry(stop=tenacity.stop_after_attempt(1), retry_error_callback=lambda _: "instead")
        assert decorate(fails)() == "instead", "it has none"
        return partly("a function that is called after the last attempt")
    decorate = {
        "squall-resilience": lambda: Fallback("rival", preset="instead", registry=None),
        "pyresilience": lambda: pyresilience.resilient(fallback=pyresilience.FallbackConfig(handler="instead")),
        "interlock-cb": lambda: interlock.Pipeline.builder().fallback(lambda _: "instead").build(),
    }[library]()
    return said(decorate(fails)() == "instead")


def last_good() -> Verdict:
    """The dependency is asked each time; its last answer stands in while it is fresh, and no longer."""
    now, down, asked = [0.0], [False], [0]
    fallback = Fallback("rival", FallbackSettings(ttl=30.0), clock=lambda: now[0], registry=None)

    @fallback
    def price(sku: str) -> float:
        asked[0] += 1
        if down[0]:
            raise Boom(sku)
        return 9.5

    price("a1")
    down[0] = True
    fresh = price("a1") == 9.5 and asked[0] == 2
    now[0] = 31.0
    try:
        price("a1")
    except Boom:
        return said(fresh)
    return NO


def cached_answer() -> Verdict:
    """What its cache does when the dependency is down."""
    down = [False]

    @pyresilience.resilient(cache=pyresilience.CacheConfig(ttl=0.05))
    def price(sku: str) -> float:
        if down[0]:
            raise Boom(sku)
        return 9.5

    price("a1")
    down[0] = True
    if price("a1") != 9.5:
        return NO
    time.sleep(0.06)
    with contextlib.suppress(Boom):
        price("a1")
        return NO
    return partly("by a cache in front of the call: while an answer is fresh the dependency is never asked")


def result_cache() -> Verdict:
    """A fresh answer is given again without asking."""
    asked = [0]

    @pyresilience.resilient(cache=pyresilience.CacheConfig(ttl=60.0))
    def price(_: str) -> float:
        asked[0] += 1
        return 9.5

    return said(price("a1") == price("a1") == 9.5 and asked[0] == 1)


def hedges() -> Verdict:
    """The first copy hangs, the second one answers, the first is cancelled."""
    sent: list[str] = []

    async def slow_once() -> str:
        sent.append("sent")
        try:
            await asyncio.sleep(30 if len(sent) == 1 else 0)
        except asyncio.CancelledError:
            sent.append("cancelled")
            raise
        return "answer"

    hedge = Hedge("rival", HedgeSettings(delay=0.02, budget_minimum=10), idempotent=True, registry=None)
    return said(asyncio.run(hedge(slow_once)()) == "answer" and sent == ["sent", "sent", "cancelled"])


def adapts() -> Verdict:
    """Calls get slow; fewer are let through at once than before."""
    now = [0.0]
    settings = AdaptiveSettings(initial=20, window=0.5, calls_min=20, latency_max=0.1)
    limit = AdaptiveConcurrency("rival", settings, clock=lambda: now[0], registry=None)

    def allowed() -> float:
        return next(each.value for each in limit.samples() if each.name == "resilience_concurrency_limit")

    before = allowed()
    for _ in range(20):
        guards = [limit.guard() for _ in range(int(allowed()))]
        for guard in guards:
            guard.__enter__()
        now[0] += 1.0
        for guard in guards:
            guard.__exit__(None, None, None)
    return said(allowed() < before)


def n_of_m() -> Verdict:
    """Two of three replicas suffice; the third one's failure is no failure."""

    async def replica(number: int) -> int:
        if number == 0:
            raise Boom
        return number

    async def run() -> list[bool]:
        async with Group("rival", registry=None).awaited(need=2) as calls:
            replicas = [calls.add(str(number), replica, number) for number in range(3)]
        return [each.ok for each in replicas]

    return said(asyncio.run(run()) == [False, True, True])


ROWS = [
    Row(
        "another answer when a call fails",
        each(answers_instead, "squall-resilience", "circuitbreaker", "hyx", "pyresilience", "interlock-cb", "tenacity"),
        ("fallback", "callback", "default", "instead"),
        "",
        {
            "fallback_circuit_state": "pybreaker: the state when Redis does not answer",
            "default_threshold": "purgatory: a setting",
            "default_ttl": "purgatory: a setting",
            "get_default_hooks": "stamina: hooks",
            "DEFAULT_OPTIONS": "limits: of a store",
            "DEFAULT_CLUSTER_OPTIONS": "limits: of a store",
            "default": "limits: of a mapping",
        },
    ),
    Row(
        "the last good answer, while it is fresh",
        {"squall-resilience": last_good, "pyresilience": cached_answer},
        ("lastgood", "stale", "ttl"),
        "",
        {
            "ttl": "purgatory, interlock, limits: how long something else holds",
            "default_ttl": "purgatory: the same",
            "state_ttl": "interlock: how long Redis keeps the state",
        },
    ),
    Row(
        "a cache in front: fresh answers are not asked for again",
        {"pyresilience": result_cache},
        ("cache",),
        "",
        dict.fromkeys(
            (
                "EmcacheBridge",
                "MemcachedBridge",
                "MemcachedClientP",
                "MemcachedStorage",
                "aio.storage.memcached",
                "call_memcached_func",
                "storage.memcached",
                "aio.storage.memcached.bridge",
                "aio.storage.memcached.emcache",
                "aio.storage.memcached.memcachio",
            ),
            "limits: a store for its counters",
        ),
    ),
    Row("hedged calls", {"squall-resilience": hedges}, ("hedg",)),
    Row(
        "concurrency limit found from the latency",
        {"squall-resilience": adapts},
        ("adaptive", "gradient", "aimd", "vegas"),
    ),
    Row("n of m calls suffice", {"squall-resilience": n_of_m}, ("quorum", "gather", "nofm", "group", "needed")),
]
