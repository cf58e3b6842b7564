"""What concerns the whole of a library: how patterns go together, what they tell, what they run on, what they need."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiolimiter
import circuitbreaker
import hyx.retry
import interlock
import interlock.integrations.httpx
import interlock.integrations.otel
import interlock.integrations.redis
import limits
import limits.aio.storage
import limits.aio.strategies
import prometheus_client
import pyresilience
import pyresilience.contrib.otel
import pyresilience.contrib.prometheus
import stamina
import tenacity
import trio
from packaging.requirements import Requirement

from squall_resilience import (
    BreakerSettings,
    CircuitBreaker,
    LiveSettings,
    Policy,
    PolicySettings,
    Retry,
    RetrySettings,
    Timeout,
    TimeoutSettings,
    WrongOrder,
    watch,
)
from squall_resilience.metrics import Registry
from tests.rivals.breakers import ASYNC, MAKERS, Boom, Face
from tests.rivals.retry_rows import RETRIERS
from tests.rivals.signatures import KEEPS
from tests.rivals.verdicts import ABSENT, LIBRARIES, NO, YES, Row, Verdict, each, partly, said

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["ROWS"]


# together


def one_object(library: str) -> Verdict:
    """A retry inside a breaker, as one thing: three failures of a call open it, however many attempts each has."""
    sent = 0

    def fails() -> None:
        nonlocal sent
        sent += 1
        raise Boom

    if library == "squall-resilience":
        retry = Retry("rival", RetrySettings(attempts=2, base=0.0), idempotent=True, on=(Boom,), registry=None)
        breaker = CircuitBreaker("rival", BreakerSettings(failures_in_a_row=4), registry=None)
        decorate: Any = Policy("rival", links=[breaker, retry], registry=None)
    elif library == "pyresilience":
        decorate = pyresilience.resilient(
            retry=pyresilience.RetryConfig(max_attempts=2, delay=0.0),
            circuit_breaker=pyresilience.CircuitBreakerConfig(failure_threshold=4),
        )
    else:
        breaker = MAKERS[library](4).it
        tries = tenacity.retry_if_exception_type(Boom)
        build = interlock.Pipeline.builder().retry(attempts=2, wait=tenacity.wait_none(), retry=tries)
        decorate = build.circuit_breaker(breaker).build()
    guarded = decorate(fails)
    for _ in range(10):
        with contextlib.suppress(Exception):
            guarded()
    return said(4 <= sent <= 8)


def order(library: str) -> Verdict:
    """A breaker outside of the retry would count what the retry has mended."""
    if library == "pyresilience":
        return Verdict("yes", "one order, which cannot be chosen") if one_object(library) == YES else NO
    if library == "interlock-cb":
        tries = tenacity.retry_if_exception_type(Boom)
        odd = interlock.Pipeline.builder().circuit_breaker(MAKERS[library](4).it).retry(retry=tries)
        odd.build()
        return Verdict("no", "any order is built; its documentation has a recommended one")
    retry = Retry("rival", RetrySettings(), registry=None)
    breaker = CircuitBreaker("rival", registry=None)
    try:
        Policy("rival", links=[retry, breaker], registry=None)
    except WrongOrder:
        return YES
    return NO


# settings


def live(library: str) -> Verdict:
    """A decorated function goes by other settings without being decorated again."""
    face = MAKERS[library](3) if library in MAKERS else None
    if library == "squall-resilience":
        assert face is not None
        face.fails(2)
        face.it.configure(BreakerSettings(failures_in_a_row=2))
        face.fails(1)
        return said(not face.admits())
    if library == "pybreaker":
        assert face is not None
        face.it.fail_max = 1
        face.fails(1)
        return said(not face.admits())
    if library == "tenacity":
        sent = 0

        @tenacity.retry(stop=tenacity.stop_after_attempt(2))
        def call() -> None:
            nonlocal sent
            sent += 1
            raise Boom

        call.retry.stop = tenacity.stop_after_attempt(5)
        with contextlib.suppress(tenacity.RetryError):
            call()
        return said(sent == 5)
    if library == "aiolimiter":
        return asyncio.run(_live_aiolimiter())
    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    assert limiter.hit(limits.parse("1/day"), "key"), "the first one"
    assert not limiter.hit(limits.parse("1/day"), "key"), "the second one"
    return Verdict("yes", "the limit is an argument of each call")


async def _live_aiolimiter() -> Verdict:
    limiter = aiolimiter.AsyncLimiter(1, 60.0)
    limiter.max_rate = 1000
    for _ in range(1000):
        await limiter.acquire()
    limiter.max_rate = 1001
    await asyncio.sleep(0.1)  # in which 1000 a minute would give one more, and 1 a minute does not
    limiter.max_rate = 1000
    return YES if limiter.has_capacity() else partly("the burst, by `max_rate`; not the rate")


def from_a_file() -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text('{"dependencies": {"rival": {"timeout": {"limit": "2s"}}}}')
        policy = Policy("rival", PolicySettings(timeout=TimeoutSettings(limit=1.0)), registry=None)
        governed = LiveSettings("rival", registry=None)
        governed.add(policy)
        with watch(path, governed, period=0.02) as watcher:
            first = policy.settings.timeout
            path.write_text('{"dependencies": {"rival": {"timeout": {"limit": "5s"}}}}')
            watcher.check_now()
            second = policy.settings.timeout
            path.write_text('{"dependencies": {"rival": {"timeout": {"limit": "-5s"}}}}')
            watcher.check_now()
            third = policy.settings.timeout
    limits_seen = [each.limit for each in (first, second, third) if each]
    return said(limits_seen == [2.0, 5.0, 5.0])


# seen from outside


def metrics(library: str) -> Verdict:
    """The text that Prometheus scrapes has the library's numbers."""
    if library == "squall-resilience":
        registry = Registry()
        breaker = CircuitBreaker("rival", registry=registry)
        breaker(lambda: None)()
        return said('resilience_breaker_calls_total{dependency="rival",outcome="success"} 1' in registry.render())
    if library == "stamina":
        stamina.instrumentation.set_on_retry_hooks([stamina.instrumentation.PrometheusOnRetryHook])
        with contextlib.suppress(Boom):
            RETRIERS[library]()(_boom)()
        stamina.instrumentation.set_on_retry_hooks([])
        name = "stamina_retries_total"
    else:
        listener = pyresilience.contrib.prometheus.PrometheusListener()
        pyresilience.resilient(listeners=[listener], retry=pyresilience.RetryConfig())(lambda: None)()
        name = "pyresilience_events_total"
    text = prometheus_client.generate_latest().decode()
    return (
        partly("with prometheus-client installed") if re.search(rf"^{name}\{{.*\}} [1-9]", text, re.MULTILINE) else NO
    )


def _boom() -> None:
    raise Boom


def lists_breakers(library: str) -> Verdict:
    if library == "squall-resilience":
        registry = Registry()
        kept = CircuitBreaker("rival", registry=registry)
        return said([each.dependency for each in registry] == [kept.dependency])
    if library == "circuitbreaker":
        circuitbreaker.circuit(name="listed")(lambda: None)
        return said("listed" in [each.name for each in circuitbreaker.CircuitBreakerMonitor.get_circuits()])
    if library == "interlock-cb":
        known = interlock.Registry()
        known.get("listed")
        return said(known.names() == ("listed",))
    registry = pyresilience.ResilienceRegistry()
    registry.register("listed", pyresilience.ResilienceConfig(circuit_breaker=pyresilience.CircuitBreakerConfig()))
    return said("listed" in registry.names)


# what it is for


def both_worlds(library: str) -> Verdict:
    """One object decorates a function and a coroutine function, and sees both fail."""
    if library in MAKERS:
        face = MAKERS[library](3)
        if library in {"purgatory", "hyx"}:
            return NO if library == "hyx" else Verdict("no", "a factory for each")

        @face.it
        async def fails() -> None:
            raise Boom

        return said(_refused_after(face, fails))
    decorate = RETRIERS[library]()
    sent = [0]

    async def call() -> None:
        sent[0] += 1
        raise Boom

    with contextlib.suppress(Exception):
        asyncio.run(decorate(call)())  # type: ignore[arg-type]
    return said(sent[0] == 4)


def no_decorator(library: str) -> Verdict:
    """It wraps no functions."""
    made = {
        "aiolimiter": lambda: aiolimiter.AsyncLimiter(1),
        "limits": lambda: limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage()),
    }[library]()
    return NO if callable(made) else ABSENT


def _refused_after(face: Face, call: Callable[[], Awaitable[None]]) -> bool:
    async def run() -> bool:
        for _ in range(3):
            with contextlib.suppress(Boom):
                await call()
        try:
            await call()
        except face.refusals:
            return True
        except Boom:
            return False
        return False

    return asyncio.run(run())


async def _fails() -> None:
    raise Boom


async def _trio_breaker(library: str) -> bool:
    face = MAKERS[library](3)
    assert face.call_async is not None
    for _ in range(3):
        with contextlib.suppress(Boom):
            await face.call_async(_fails)
    try:
        await face.call_async(_fails)
    except face.refusals:
        return True
    return False


async def _trio_retry(library: str) -> bool:
    sent = [0]

    async def call() -> None:
        sent[0] += 1
        raise Boom

    decorate: Any = hyx.retry.retry(on=Boom, attempts=3, backoff=0.0) if library == "hyx" else RETRIERS[library]()
    with contextlib.suppress(Boom, tenacity.RetryError):
        await decorate(call)()
    return sent[0] == 4


async def _trio_limiter(library: str) -> bool:
    if library == "aiolimiter":
        async with aiolimiter.AsyncLimiter(1):
            return True
    storage = limits.aio.storage.MemoryStorage()
    return await limits.aio.strategies.FixedWindowRateLimiter(storage).hit(limits.parse("1/day"), "key")


async def _trio_timeout(_: str) -> bool:
    with contextlib.suppress(TimeoutError):
        await Timeout("rival", TimeoutSettings(limit=0.01), registry=None)(trio.sleep_forever)()
        return False
    return True


def on_trio(library: str) -> Verdict:
    """On trio: a breaker that opens, a retry that waits, a limiter that gives a token, a time-out that ends a call."""
    there = {
        _trio_breaker: library in MAKERS,
        _trio_retry: library in RETRIERS,
        _trio_limiter: library in {"aiolimiter", "limits"},
        _trio_timeout: library == "squall-resilience",
    }
    seen = []
    for check in [check for check, has in there.items() if has]:
        try:
            seen.append(trio.run(check, library))
        except (RuntimeError, TypeError, AttributeError, NotImplementedError, BaseExceptionGroup):
            seen.append(False)  # there is no loop of asyncio
    if all(seen):
        return YES
    return partly("its breaker; what waits needs asyncio") if any(seen) else NO


def generators(library: str) -> Verdict:
    """A generator that fails after its first item: seen, or refused when it is decorated; not passed over."""

    def items() -> Generator[int, None, None]:
        yield 1
        raise Boom

    if library in MAKERS:
        face = MAKERS[library](3)
        decorate = face.it("rival") if library == "purgatory" else face.it
    else:
        face, decorate = None, RETRIERS[library]()
    try:
        produce = decorate(items)
    except TypeError:
        return Verdict("yes", "refused")
    if library == "hyx":
        return said(inspect.isgeneratorfunction(produce))
    if face is None:
        started = 0
        with contextlib.suppress(Exception):
            started = len(list(produce()))
        return said(started > 1)
    for _ in range(3):
        with contextlib.suppress(Boom, RuntimeError):
            list(produce())
    try:
        list(produce())
    except face.refusals:
        return YES
    except (Boom, RuntimeError):
        return NO
    return NO


@cache
def _typed() -> dict[str, str]:
    """What mypy finds the decorated functions of all libraries to be, in one run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "decorated.py"
        file.write_text("\n".join(lines for lines, _ in KEEPS.values()))
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--follow-imports=silent",
            "--no-error-summary",
            "--ignore-missing-imports",
        ]
        done = subprocess.run(
            [*command, "--cache-dir", f"{folder}/cache", "--config-file", "", str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == len(KEEPS), done.stdout + done.stderr
    return dict(zip(KEEPS, revealed, strict=True))


def signature(library: str) -> Verdict:
    seen = _typed()[library]
    return said(
        bool(re.fullmatch(r"def \(sku: (builtins\.)?str, amount: (builtins\.)?int =\) -> (builtins\.)?bool", seen))
        or bool(re.search(KEEPS[library][1] or "$^", seen))
    )


def needs_nothing(library: str) -> Verdict:
    needed = sorted(
        {
            re.split(r"[\s<>=!~;\[(]", line)[0]
            for line in requires(library) or ()
            if "extra ==" not in line and _applies(line)
        }
    )
    if library == "interlock-cb":
        assert any(line.startswith("tenacity") for line in requires(library) or ()), "no more: say so"
        return Verdict("yes", "its retries need tenacity")
    return Verdict("no", ", ".join(needed)) if needed else YES


def _applies(line: str) -> bool:
    marker = Requirement(line).marker
    return marker is None or marker.evaluate()


WITHOUT_DECORATOR = each(no_decorator, "limits", "aiolimiter")

ROWS = [
    Row(
        "several patterns as one object",
        each(one_object, "squall-resilience", "pyresilience", "interlock-cb"),
        ("pipeline", "policy", "resilient", "compose"),
    ),
    Row(
        "… whose order is checked or fixed",
        each(order, "squall-resilience", "pyresilience", "interlock-cb"),
        ("pipeline", "policy", "resilient", "compose"),
    ),
    Row(
        "settings changed live",
        each(live, "squall-resilience", "pybreaker", "tenacity", "limits", "aiolimiter"),
        ("configure", "reload", "update"),
    ),
    Row("settings from a watched file", {"squall-resilience": from_a_file}, ("watch", "yaml", "toml", "fromfile")),
    Row("metrics as Prometheus text", each(metrics, "squall-resilience", "pyresilience", "stamina"), ("prometheus",)),
    Row(
        "lists the breakers of the process",
        each(lists_breakers, "squall-resilience", "circuitbreaker", "pyresilience", "interlock-cb"),
        ("registry", "monitor"),
        "breaker",
    ),
    Row(
        "one object for functions and coroutine functions",
        each(both_worlds, *dict.fromkeys([*MAKERS, *(name for name in RETRIERS if name not in MAKERS)]))
        | WITHOUT_DECORATOR,
    ),
    Row(
        "works on trio",
        each(on_trio, *dict.fromkeys([*ASYNC, *(n for n in RETRIERS if n not in ASYNC), "limits", "aiolimiter"])),
        ("trio",),
    ),
    Row(
        "generator functions: failures are seen, or they are refused",
        each(
            generators,
            "squall-resilience",
            "circuitbreaker",
            "pybreaker",
            "pyresilience",
            "interlock-cb",
            "tenacity",
            "stamina",
            "purgatory",
            "hyx",
        )
        | WITHOUT_DECORATOR,
    ),
    Row("a decorated function keeps its signature for type checkers", each(signature, *KEEPS) | WITHOUT_DECORATOR),
    Row("needs the standard library only", each(needs_nothing, *LIBRARIES)),
]
