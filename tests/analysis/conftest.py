"""Simulated measurements of a system: what the routines are tried on, with a seed, so that every failure replays."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from squall.analysis import Timeline
from squall.experiment.model import Experiment
from squall.probes.samples import OUTCOMES, Series

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000_000
URL = "http://127.0.0.1:8080/orders"
Build = dict[str, object]


@dataclass
class System:
    """A service under load at `rate` a second for the blueprint's times: 10 s before, 60 s of fault, 30 s after.

    Latencies are lognormal around `median_ms`, with a level that wanders from second to second (AR(1) with `memory`);
    `errors` of the requests fail; in a burst (`bursts` a second begin one, of about two seconds) `burst_errors` do.
    `change(t)` in seconds gives factors (latency, extra share of errors, share of time-outs) at t.
    """

    rate: float = 50
    median_ms: float = 40
    spread: float = 0.4
    memory: float = 0.8
    wander: float = 0.15
    errors: float = 0.0005
    bursts: float = 0.0
    burst_errors: float = 0.1
    change: Callable[[float], tuple[float, float, float]] = field(default=lambda _: (1, 0, 0))
    before: float = 10
    during: float = 60
    after: float = 30

    @property
    def timeline(self) -> Timeline:
        on, off = int(self.before * SECOND), int((self.before + self.during) * SECOND)
        return Timeline(0, ((on, off),), off, off + int(self.after * SECOND))

    def series(self, seed: int, name: str = "load") -> Series:
        draw = random.Random(seed)
        made, level, burst = Series(name), 0.0, 0
        ok, error, timeout = (OUTCOMES.index(o) for o in ("ok", "error", "timeout"))
        total = self.before + self.during + self.after
        for second in range(math.ceil(total)):
            level = self.memory * level + draw.gauss(0, self.wander)
            burst = burst - 1 if burst else (draw.choice((1, 2, 3)) if draw.random() < self.bursts else 0)
            for i in range(round((second + 1) * self.rate) - round(second * self.rate)):
                at = second + i / self.rate if self.rate >= 1 else float(second)
                slow, extra, hang = self.change(at)
                share = self.errors + extra + (self.burst_errors if burst else 0)
                latency = int(math.exp(draw.gauss(0, self.spread) + level) * self.median_ms * slow * 1e6)
                outcome = timeout if draw.random() < hang else error if draw.random() < share else ok
                made.time_ns.append(int(at * SECOND))
                made.latency_ns.append(10 * SECOND if outcome == timeout else latency)
                made.value.append(0.0)
                made.outcome.append(outcome)
                made.detail.append(0)
        return made


def build(**changes: object) -> Experiment:
    """The blueprint's experiment: an expectation that the load measures, and its thresholds."""
    data: Build = {
        "name": "inventory-is-slow",
        "steadyState": [{"name": "orders", "http": {"url": URL}, "p95": "300ms", "errorRate": "0.5%"}],
        "tolerate": {"p95": "1200ms", "errorRate": "2%", "exceptFor": "20s"},
        "load": {"http": {"url": URL}, "rate": "50/s"},
        "faults": [
            {
                "type": "tcp.latency",
                "latency": "3s",
                "duration": "60s",
                "targets": {"route": {"listen": "127.0.0.1:1", "upstream": "127.0.0.1:2"}},
            }
        ],
        "duration": "60s",
        **changes,
    }
    return Experiment.model_validate({key: value for key, value in data.items() if value is not None})


@pytest.fixture
def system() -> type[System]:
    return System


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    return build
