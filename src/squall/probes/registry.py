"""Which class samples which kind of probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from squall.probes.samples import Sample
    from squall.probes.spec import Probe

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


def build(probe: Probe) -> Sampler:
    """The sampler of a probe; InputError for what can be seen to be wrong now (an address, a missing secret or program)."""
    # imported where needed: an experiment rarely uses all of them, and each costs start-up time
    if probe.http is not None:
        from squall.probes.http import HttpProbe

        return HttpProbe(probe)
    if probe.tcp is not None:
        from squall.probes.tcp import TcpProbe

        return TcpProbe(probe)
    if probe.process is not None:
        from squall.probes.process import ProcessProbe

        return ProcessProbe(probe)
    if probe.command is not None:
        from squall.probes.command import CommandProbe

        return CommandProbe(probe)
    if probe.runtime is not None:
        from squall.probes.runtime import RuntimeProbe

        return RuntimeProbe(probe)
    from squall.probes.prometheus import PrometheusProbe

    return PrometheusProbe(probe)
