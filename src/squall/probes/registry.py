"""Which class samples which kind of probe."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from squall.probes.samples import Sample
    from squall.probes.spec import Probe
    from squall.probes.traceparent import Marks

__all__ = ["Sampler", "build"]


class Sampler(Protocol):
    """What every probe can do. A request series counts outcomes and latencies, a gauge series (`name.gauge`) holds values."""

    last_failure: str
    """Why the latest sample that failed did, for people; no secrets."""

    def series(self) -> tuple[str, ...]:
        """The names of all its series, the request series (the probe's own name) first."""

    async def sample(self) -> list[Sample]:
        """One measurement, bounded by the probe's time-out; never raises for a target that fails: that is data."""

    async def close(self) -> None:
        """Let go of what it holds; idempotent."""


_SAMPLERS = {
    "tcp": "TcpProbe",
    "process": "ProcessProbe",
    "command": "CommandProbe",
    "runtime": "RuntimeProbe",
    "resilience": "ResilienceProbe",
    "prometheus": "PrometheusProbe",
}
"""Kind, which is also its module's name, and class."""


def build(probe: Probe, marks: Marks | None = None) -> Sampler:
    """The sampler of a probe, whose requests carry `marks` if they are HTTP.

    Raises InputError for what can be seen to be wrong now (an address, a missing secret or program).
    """
    # imported where needed: an experiment rarely uses all of them, and each costs start-up time
    if probe.http is not None:
        from squall.probes.http import HttpProbe

        return HttpProbe(probe, marks)
    module = importlib.import_module(f"squall.probes.{probe.kind}")
    sampler: Sampler = getattr(module, _SAMPLERS[probe.kind])(probe)
    return sampler
