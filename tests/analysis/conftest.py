"""Simulated measurements of a system: what the routines are tried on, with a seed, so that every failure replays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
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
    `errors` of the requests fail; in a burst (`bursts` a second begin one, of two seconds) `burst_errors` do.
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
    change: Callable[[float], tuple[float, float, float]] | None = None
    before: float = 10
    during: float = 60
    after: float = 30

    @property
    def timeline(self) -> Timeline:
        on, off = int(self.before * SECOND), int((self.before + self.during) * SECOND)
        return Timeline(0, ((on, off),), off, off + int(self.after * SECOND))

    def series(self, seed: int, name: str = "load") -> Series:
        draw = np.random.default_rng(seed % 2**32)
        seconds = math.ceil(self.before + self.during + self.after)
        at = np.arange(round(seconds * self.rate)) / self.rate
        second, n = at.astype(int), len(at)
        swings = draw.normal(0, self.wander, seconds).tolist()
        level = np.array(list(accumulate(swings, lambda before, swing: self.memory * before + swing)))[second]
        latency = np.exp(draw.normal(0, self.spread, n) + level) * self.median_ms * 1e6
        in_burst = np.convolve(draw.random(seconds) < self.bursts, [1, 1])[:seconds][second] > 0
        share = self.errors + self.burst_errors * in_burst
        failed_draw, hang_draw = draw.random(n), draw.random(n)
        hung = np.zeros(n, dtype=bool)
        if self.change is not None:
            slow, extra, hang = np.array([self.change(t) for t in at.tolist()]).T
            latency, share, hung = latency * slow, share + extra, hang_draw < hang
        ok, error, timeout = (OUTCOMES.index(o) for o in ("ok", "error", "timeout"))
        made = Series(name)
        made.time_ns.extend((at * SECOND).astype(int).tolist())
        made.latency_ns.extend(np.where(hung, 10 * SECOND, latency).astype(int).tolist())
        made.value.extend([0.0] * n)
        made.outcome.extend(np.where(hung, timeout, np.where(failed_draw < share, error, ok)).tolist())
        made.detail.extend([0] * n)
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
