"""What retries do, seen by what they send again and how long they wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import hyx.retry
import hyx.retry.backoffs
import hyx.retry.jitters
import interlock
import interlock.integrations.tenacity
import pyresilience
import pyresilience.contrib.http
import stamina
import tenacity

from squall_resilience import Retry, RetryBudget, RetrySettings
from tests.rivals.breakers import Boom
from tests.rivals.verdicts import NO, YES, Row, Verdict, partly, said

__all__ = ["RETRIERS", "ROWS"]

KIND = "retry"
MANY = RetrySettings(attempts=4, base=0.02, cap=1.0, budget=10.0, budget_minimum=1000)
Decorate = Callable[[Callable[[], object]], Callable[[], object]]


def _hyx(*, on: type[Exception] = Boom) -> Decorate:
    backoff = hyx.retry.backoffs.expo(min_delay_secs=0.02, jitter=hyx.retry.jitters.full)
    again = hyx.retry.retry(on=on, attempts=4, backoff=backoff)

    def decorate(call: Callable[[], object]) -> Callable[[], object]:
        @again
        async def awaited() -> object:
            return call()

        return lambda: asyncio.run(awaited())

    return decorate


def _interlock() -> Decorate:
    build = interlock.Pipeline.builder()
    waits = tenacity.wait_random_exponential(multiplier=0.02)
    retries = tenacity.retry_if_exception_type(Boom)
    return build.retry(attempts=4, wait=waits, retry=retries).build()  # type: ignore[return-value]


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # (looked up when it is called: a test may stand in its place)


RETRIERS: dict[str, Callable[[], Decorate]] = {
    "squall-resilience": lambda: Retry("rival", MANY, idempotent=True, on=(Boom,), registry=None, sleeps=_sleep),
    "hyx": _hyx,
    "pyresilience": lambda: pyresilience.resilient(
        retry=pyresilience.RetryConfig(max_attempts=4, delay=0.02, retry_on=(Boom,))
    ),
    "interlock-cb": _interlock,
    "tenacity": lambda: tenacity.retry(
        stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_random_exponential(multiplier=0.02)
    ),
    "stamina": lambda: stamina.retry(on=Boom, attempts=4, wait_initial=0.02, wait_jitter=0.02),
}


@contextlib.contextmanager
def _waits() -> Iterator[list[float]]:
    """No wait takes time in here; all are noted."""
    noted: list[float] = []

    async def awaited(seconds: float, result: object = None) -> object:
        noted.append(seconds)
        return result

    with mock.patch("time.sleep", noted.append), mock.patch("asyncio.sleep", awaited):
        yield noted


def each(check: Callable[[str], Verdict]) -> dict[str, Callable[[], Verdict]]:
    """The same check on the retries of all libraries."""
    return {library: partial(check, library) for library in RETRIERS}


def _attempts(decorate: Decorate, error: Exception | None = None) -> tuple[int, BaseException | None]:
    sent = 0

    def call() -> None:
        nonlocal sent
        sent += 1
        raise error or Boom

    try:
        decorate(call)()
    except Exception as last:  # noqa: BLE001 - what is raised is what is looked at
        return sent, last
    return sent, None


def jitter(library: str) -> Verdict:
    """Two callers that fail at one moment do not come back at one moment."""
    seen = set()
    for _ in range(5):
        with _waits() as noted:
            sent, _ = _attempts(RETRIERS[library]())
        assert sent >= 4, f"{library} sent {sent} times"
        seen.add(tuple(noted[:3]))
    return said(len(seen) == 5)


def raises_the_last_error(library: str) -> Verdict:
    with _waits():
        _, last = _attempts(RETRIERS[library]())
    if isinstance(last, Boom):
        return YES
    if library == "tenacity":
        with _waits(), contextlib.suppress(Boom):
            tenacity.retry(stop=tenacity.stop_after_attempt(2), reraise=True)(lambda: (_ for _ in ()).throw(Boom))()
            raise AssertionError("nothing was raised")
        return partly("with `reraise=True`; by default `RetryError` around it")
    return Verdict("no", f"`{type(last).__name__}`") if last else NO


def our_budget() -> Verdict:
    """Two functions, a hundred calls each, all fail: 10 % of 200 are sent again."""
    budget = RetryBudget(0.1, 0, 1000.0, time.monotonic)
    sent = 0
    settings = RetrySettings(attempts=4, base=0.0, cap=0.0)
    for name in ("one", "two"):
        retry = Retry(name, settings, idempotent=True, on=(Boom,), budget=budget, registry=None)
        for _ in range(100):
            sent += _attempts(retry)[0]
    return said(200 + 15 <= sent <= 200 + 21)


def their_budget() -> Verdict:
    """Two functions, decorated by one name of a registry: five are sent again, not ten."""
    budget = pyresilience.RetryBudgetConfig(max_retries=5, refill_rate=0.001)
    retries = pyresilience.RetryConfig(max_attempts=4, delay=0.0, retry_on=(Boom,))
    registry = pyresilience.ResilienceRegistry()
    registry.register("rival", pyresilience.ResilienceConfig(retry=retries, retry_budget=budget))
    apart = pyresilience.resilient(retry=retries, retry_budget=budget)
    together = [_attempts_of_ten(registry.decorator("rival")) for _ in range(2)]
    each_for_itself = [_attempts_of_ten(apart) for _ in range(2)]
    assert each_for_itself == [15, 15], "the decorator shares too now: say so"
    return said(sum(together) == 25, "by the name in its registry; `@resilient` makes one for each function")


def _attempts_of_ten(decorate: Decorate) -> int:
    sent = 0

    def call() -> None:
        nonlocal sent
        sent += 1
        raise Boom

    guarded = decorate(call)
    for _ in range(10):
        with contextlib.suppress(Exception):
            guarded()
    return sent


class Busy(Boom):
    """A 503 with Retry-After, as the clients of HTTP hold it."""

    retry_after = 0.5
    response = SimpleNamespace(headers={"Retry-After": "1"}, status_code=503)


def retry_after(library: str) -> Verdict:
    def hook(error: Exception) -> float:
        return float(error.response.headers["Retry-After"])  # type: ignore[attr-defined]

    def build() -> tuple[Decorate, Verdict]:
        of_a_function = partly("by a function of the exception that you write")
        if library == "squall-resilience":
            return RETRIERS[library](), YES
        if library == "tenacity":
            waits = tenacity.wait_exception(hook)
            return tenacity.retry(stop=tenacity.stop_after_attempt(4), wait=waits), of_a_function
        if library == "interlock-cb":
            pipeline = interlock.Pipeline.builder().retry(
                wait=tenacity.wait_exception(hook), retry=tenacity.retry_if_exception_type(Boom)
            )
            return pipeline.build(), of_a_function  # type: ignore[return-value]
        if library == "stamina":
            return stamina.retry(on=hook, attempts=4), of_a_function
        delay = pyresilience.contrib.http.retry_after_delay()
        config = pyresilience.RetryConfig(max_attempts=4, delay=0.02, retry_on=(Boom,), delay_func=delay)
        return pyresilience.resilient(retry=config), YES

    with _waits() as noted:
        decorate, verdict = build()
        _attempts(decorate, Busy())
    asked = 0.5 if library == "squall-resilience" else 1.0
    assert noted, "it did not wait"
    return verdict if all(asked <= wait < asked + 0.2 for wait in noted) else NO


def asks_for_idempotency() -> Verdict:
    """A payment whose connection broke is not sent again, until somebody says that it may be."""
    lost = ConnectionResetError()
    once, _ = _attempts(Retry("rival", MANY, registry=None, sleeps=lambda _: None), lost)
    more, _ = _attempts(Retry("rival", MANY, idempotent=True, registry=None, sleeps=lambda _: None), lost)
    return said((once, more) == (1, 4))


def block(library: str) -> Verdict:
    """A block of code is tried again, not a function."""
    if library == "squall-resilience":
        attempts: Any = Retry("rival", MANY, idempotent=True, on=(Boom,), registry=None).attempts()
    elif library == "tenacity":
        attempts = tenacity.Retrying(stop=tenacity.stop_after_attempt(4))
    else:
        attempts = stamina.retry_context(on=Boom, attempts=4, wait_initial=0.0, wait_jitter=0.0)
    tried = 0
    with _waits():
        for attempt in attempts:
            with attempt:
                tried += 1
                if tried < 3:
                    raise Boom
    return said(tried == 3)


def switched_off(library: str) -> Verdict:
    """One line makes every retry of the process a single attempt."""
    if library == "tenacity":
        sent, _ = _attempts(tenacity.retry(stop=tenacity.stop_after_attempt(4), enabled=False))
        return partly("each retry for itself, by `enabled=False`") if sent == 1 else NO
    stamina.set_active(False)
    try:
        sent, _ = _attempts(RETRIERS["stamina"]())
    finally:
        stamina.set_active(True)
    return said(sent == 1)


ROWS = [
    Row("retries with jitter", each(jitter), kind=KIND),
    Row(
        "a retry budget shared between functions",
        {"squall-resilience": our_budget, "pyresilience": their_budget},
        ("budget", "quota"),
        KIND,
    ),
    Row(
        "waits as long as Retry-After says",
        {
            library: partial(retry_after, library)
            for library in ("squall-resilience", "pyresilience", "interlock-cb", "tenacity", "stamina")
        },
        ("retryafter", "delayfunc"),
        KIND,
    ),
    Row(
        "sends again only what is said to be idempotent",
        {"squall-resilience": asks_for_idempotency},
        ("idempot",),
        KIND,
    ),
    Row("raises what the last attempt raised", each(raises_the_last_error), kind=KIND),
    Row(
        "a block tried again in a loop",
        {library: partial(block, library) for library in ("squall-resilience", "tenacity", "stamina")},
        ("attempts", "retrycontext", "attemptmanager"),
        KIND,
        {
            "attempts": "hyx, interlock: how many",
            "max_attempts": "hyx, pyresilience: how many",
            "MaxAttemptsExceeded": "hyx: an error",
        },
    ),
    Row(
        "all retries of the process off by one line, for tests",
        {"tenacity": partial(switched_off, "tenacity"), "stamina": partial(switched_off, "stamina")},
        ("setactive", "settesting", "enabled"),
        KIND,
        {"enabled": "squall: of the chaos middleware", "X_CHAOS_ENABLED": "squall: the same"},
    ),
]
