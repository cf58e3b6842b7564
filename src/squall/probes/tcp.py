"""The `tcp` probe: does a connection open, and how soon."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from squall.errors import InputError
from squall.probes.exchange import open_socket
from squall.probes.names import Names
from squall.probes.outcomes import of_failure
from squall.probes.samples import Sample

if TYPE_CHECKING:
    from squall.probes.spec import Probe

__all__ = ["TcpProbe"]

_PORT_MOST = 65_535


class TcpProbe:
    """Opens a connection and closes it at once; the latency is that of connecting (the kernel answers for a paused process)."""

    def __init__(self, probe: Probe) -> None:
        if probe.tcp is None:
            raise InputError(f"{probe.name}: not a tcp probe")
        host, _, port = probe.tcp.rpartition(":")
        if not 1 <= int(port) <= _PORT_MOST:
            raise InputError(f"{probe.name}: {probe.tcp}: a port is 1 to {_PORT_MOST}")
        self._name = probe.name
        self._names = Names(host.removeprefix("[").removesuffix("]"), int(port))
        self._timeout_s = probe.timeout.seconds
        self.last_failure = ""

    def series(self) -> tuple[str, ...]:
        """Its one series of requests."""
        return (self._name,)

    async def sample(self) -> list[Sample]:
        """One measurement; a failure is one too."""
        begun_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._timeout_s):
                (await open_socket(self._names)).close()
        except OSError as error:
            self.last_failure = str(error) or f"no connection within {self._timeout_s:g} s"
            outcome, detail = of_failure(error)
            return [Sample(self._name, begun_ns, time.monotonic_ns() - begun_ns, outcome, detail=detail)]
        return [Sample(self._name, begun_ns, time.monotonic_ns() - begun_ns, "ok")]

    async def close(self) -> None:
        """Nothing is held between samples."""
