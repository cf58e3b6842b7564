"""Every link meets every kind of fault, alone and with all the others: where it began, and where it stopped, is exact."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from squall_resilience import deadline
from squall_resilience.adaptive import AdaptiveSettings
from squall_resilience.breaker import BreakerSettings
from squall_resilience.bulkhead import BulkheadSettings
from squall_resilience.fallback import Fallback, FallbackSettings
from squall_resilience.hedge import HedgeSettings
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.order import ORDER
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.policy.trace import trace_of
from squall_resilience.rate_limiter import RateLimiterSettings
from squall_resilience.retry import RetrySettings
from squall_resilience.safe import idempotent
from squall_resilience.timeout import TimeoutSettings

LIMIT = 0.04
CLIENTS_OWN = 0.15
"""Seconds: the time-out of the transport itself."""

SETTINGS: dict[str, Any] = {
    "timeout": TimeoutSettings(5),
    "adaptive_concurrency": AdaptiveSettings(initial=1, low=1, high=1),
    "breaker": BreakerSettings(),
    "bulkhead": BulkheadSettings(limit=1, waiting=0),
    "rate_limiter": RateLimiterSettings(rate=1000, burst=1000),
    "hedge": HedgeSettings(delay=10.0),
    "retry": RetrySettings(attempts=2, base=0.001, cap=0.002),
    "deadline": TimeoutSettings(5),
    "fallback": FallbackSettings(last_good=False),
}
LINKS = sorted(SETTINGS)

Way = tuple[str, str, bool]
"""Where it began, where it stopped, whether the caller got an error."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault, and where it stops: by the only link of a chain; `others` for links that have no say in it."""

    others: Way | None
    at: dict[str, Way | None]
    everything: Way | None
    """In the chain of all links but the fallback."""
    settings: dict[str, Any]


def at_transport(stopped_at: str = "transport", reached: bool = True) -> Way:  # noqa: FBT001, FBT002 - a row of a table
    return ("transport", stopped_at, reached)


def by(link: str) -> Way:
    return (link, link, True)


ANSWERED = at_transport("fallback", reached=False)
FAULTS: dict[str, Fault] = {
    "error": Fault(at_transport(), {"fallback": ANSWERED}, at_transport(), {}),
    "refused": Fault(at_transport(), {"retry": at_transport("retry"), "fallback": ANSWERED}, at_transport("retry"), {}),
    "flaky": Fault(
        at_transport(),
        {"retry": at_transport("retry", reached=False), "fallback": ANSWERED},
        at_transport("retry", reached=False),
        {},
    ),
    "hang": Fault(
        at_transport(),
        {
            "timeout": by("timeout"),
            "deadline": by("deadline"),
            "retry": at_transport("retry"),
            "fallback": ANSWERED,
        },
        ("timeout", "retry", True),
        {"timeout": TimeoutSettings(LIMIT)},
    ),
    "slow": Fault(
        None,
        {"timeout": by("timeout"), "deadline": by("deadline")},
        ("timeout", "retry", True),
        {"timeout": TimeoutSettings(LIMIT)},
    ),
    "overload": Fault(
        None,
        {"bulkhead": by("bulkhead"), "adaptive_concurrency": by("adaptive_concurrency")},
        ("bulkhead", "retry", True),
        {},
    ),
    "limit found": Fault(
        None,
        {"adaptive_concurrency": by("adaptive_concurrency")},
        ("adaptive_concurrency", "retry", True),
        {"bulkhead": BulkheadSettings(limit=9, waiting=0)},
    ),
    "rate": Fault(
        None,
        {"rate_limiter": by("rate_limiter")},
        ("rate_limiter", "deadline", True),  # the wait for the next token is longer than what is left
        {"rate_limiter": RateLimiterSettings(rate=1, per=60, burst=1)},
    ),
    "open": Fault(
        None, {"breaker": by("breaker")}, ("breaker", "breaker", True), {"breaker": BreakerSettings(forced="open")}
    ),
    "budget": Fault(
        at_transport(),
        {"retry": at_transport("retry"), "fallback": ANSWERED},
        at_transport("retry"),
        {"retry": RetrySettings(attempts=5, budget=0.0, budget_minimum=0)},
    ),
    "expired": Fault(
        at_transport(),
        {"timeout": by("timeout"), "deadline": by("deadline"), "retry": at_transport("retry"), "fallback": ANSWERED},
        by("deadline"),
        {},
    ),
    "cancelled": Fault(None, {}, None, {}),
}


class Transport:
    """What is at the end of the chain: one call of it as the fault has it, sync and async."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0
        self.begun = threading.Event()

    def fails(self) -> None:
        """What goes wrong before anything is waited for."""
        self.calls += 1
        deadline.check()
        if self.fault == "error":
            raise RuntimeError("500")
        if self.fault in {"refused", "budget"} or (self.fault == "flaky" and self.calls == 1):
            raise ConnectionRefusedError("no one listens")

    def answer(self) -> str:
        self.fails()
        self.begun.set()
        if self.fault == "hang":
            time.sleep(deadline.at_most(CLIENTS_OWN) or 0.0)
            raise TimeoutError("read")
        if self.fault == "slow":
            time.sleep(2 * LIMIT)
        if self.fault == "cancelled":
            raise KeyboardInterrupt
        return "answer"

    async def answer_async(self) -> str:
        self.fails()
        if self.fault == "hang":
            await asyncio.sleep(CLIENTS_OWN)
            raise TimeoutError("read")
        if self.fault == "slow":
            await asyncio.sleep(2 * LIMIT)
        if self.fault == "cancelled":
            await asyncio.sleep(30)
        return "answer"


def crowded(policy: Policy, fault: str) -> list[Any]:
    """The links whose only slot another call has."""
    kinds = {"overload": ("adaptive_concurrency", "bulkhead"), "limit found": ("adaptive_concurrency",)}.get(fault, ())
    return [link for kind in kinds if (link := policy.link(kind)) is not None]


def play(policy: Policy, fault: str) -> BaseException | None:
    """The fault, by blocking calls; the error that the caller gets."""
    transport = Transport(fault)

    @policy
    @idempotent
    def call() -> str:
        return transport.answer()

    with contextlib.ExitStack() as stack:
        for link in crowded(policy, fault):
            stack.enter_context(link.guard())
        if fault == "rate":
            call()
        if fault == "expired":
            stack.enter_context(deadline.within(0.0))
        try:
            call()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - it is what is asked for
            return error
    return None


def play_async(policy: Policy, fault: str) -> BaseException | None:
    """The same, by awaited calls."""
    transport = Transport(fault)

    @policy
    @idempotent
    async def call() -> str:
        return await transport.answer_async()

    async def main() -> BaseException | None:
        async with contextlib.AsyncExitStack() as stack:
            for link in crowded(policy, fault):
                await stack.enter_async_context(link.guard())
            if fault == "rate":
                await call()
            if fault == "expired":
                stack.enter_context(deadline.within(0.0))
            task = asyncio.ensure_future(call())
            if fault == "cancelled":
                await asyncio.sleep(0.01)  # it has begun, or not: it is all the same
                task.cancel()
            done, _ = await asyncio.wait([task])
            try:
                done.pop().result()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above
                return error
            return None

    return asyncio.run(main())


def ways(policy: Policy) -> list[Way]:
    return [(trace.origin, trace.stopped_at, trace.reached_caller) for trace in policy.traces]


def holds(policy: Policy) -> dict[str, float]:
    """What the links hold and have counted as failures."""
    found: dict[str, float] = {}
    for link in policy.links:
        for sample in link.samples():
            labels = dict(sample.labels)
            if sample.name.endswith(("in_use", "waiting")) or labels.get("outcome") == "failure":
                found[f"{sample.name} {labels.get('outcome', '')}"] = sample.value
    return found


def check(policy: Policy, error: BaseException | None, fault: str, expected: Way | None) -> None:
    """The trace, the error and what the links hold are as expected."""
    assert ways(policy) == ([] if expected is None else [expected])
    if fault == "cancelled":
        assert isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
        assert not any(holds(policy).values())
    elif expected is None or not expected[2]:
        assert error is None
    else:
        assert error is not None
        assert trace_of(error) == policy.traces[-1]
        assert policy.traces[-1].reason
    assert not any(value for name, value in holds(policy).items() if "in_use" in name or "waiting" in name)


PLAYS = pytest.mark.parametrize("playing", [play, play_async], ids=["sync", "async"])
Playing = Callable[[Policy, str], BaseException | None]


def made(kinds: list[str], fault: str) -> Policy:
    chosen = {kind: FAULTS[fault].settings.get(kind, SETTINGS[kind]) for kind in kinds}
    links = [Fallback("inventory", SETTINGS["fallback"], preset="preset", registry=None)] if "fallback" in kinds else []
    return Policy("inventory", PolicySettings(**chosen), links=links, registry=None)


@PLAYS
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("link", LINKS)
def test_one_link_meets_one_fault(link: str, fault: str, playing: Playing) -> None:
    policy = made([link], fault)
    if link == "deadline" and "timeout" in FAULTS[fault].settings:
        policy.configure(PolicySettings(deadline=FAULTS[fault].settings["timeout"]))
    check(policy, playing(policy, fault), fault, FAULTS[fault].at.get(link, FAULTS[fault].others))


@PLAYS
@pytest.mark.parametrize("fault", FAULTS)
def test_all_links_but_the_fallback_meet_one_fault(fault: str, playing: Playing) -> None:
    policy = made([link for link in LINKS if link != "fallback"], fault)
    check(policy, playing(policy, fault), fault, FAULTS[fault].everything)


@PLAYS
@pytest.mark.parametrize("fault", FAULTS)
def test_with_a_fallback_the_caller_always_has_an_answer(fault: str, playing: Playing) -> None:
    policy = made(LINKS, fault)
    expected = FAULTS[fault].everything
    if expected is not None and expected[2]:
        expected = (expected[0], "fallback", False)
    check(policy, playing(policy, fault), fault, expected)


def test_the_table_has_every_link() -> None:
    assert sorted(place.kind for place in ORDER) == LINKS
