"""The `process` probe: is it alive, how often was it restarted, what does it use."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.errors import InputError, TargetError
from squall.kernel import proc
from squall.probes.samples import Sample
from squall.targets import find_processes

if TYPE_CHECKING:
    from squall.probes.spec import Probe
    from squall.targets import ProcessIdentity

__all__ = ["GAUGES", "ProcessProbe"]

GAUGES = ("rss", "fds", "threads", "cpu", "restarts")
"""Bytes; open descriptors; threads; cores used since the last sample; processes that appeared after the first look."""

SEARCH_NS = 5_000_000_000
"""While all that was found lives, the machine is searched for further matches only this often: a search reads all of /proc."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class _Use:
    """What all matching processes use together."""

    alive: int = 0
    rss: int = 0
    threads: int = 0
    fds: int | None = 0
    cpu: float | None = None


class ProcessProbe:
    """Looks at every process that matches its query and adds them up; success is that at least one is alive.

    A zombie is not alive; a stopped process is. Gauges are left out where they cannot be known: descriptors of another
    user's process, CPU at the first look.
    """

    def __init__(self, probe: Probe) -> None:
        if probe.process is None:
            raise InputError(f"{probe.name}: not a process probe")
        self._name, self._query = probe.name, probe.process
        self._known: dict[ProcessIdentity, tuple[int, int] | None] = {}
        """Each process with the time of the last look and the CPU ticks it had used by then."""
        self._ever: set[ProcessIdentity] = set()
        self._restarts = 0
        self._search_at_ns = 0
        self.last_failure = ""

    def series(self) -> tuple[str, ...]:
        """Being alive, and its gauges."""
        return (self._name, *(f"{self._name}.{gauge}" for gauge in GAUGES))

    async def sample(self) -> list[Sample]:
        """One look."""
        begun_ns = time.monotonic_ns()
        use = self._look(begun_ns)
        if not use.alive:
            use = self._look(begun_ns, search=True)
        outcome, detail = ("ok", 0) if use.alive else ("error", errno.ESRCH)
        samples = [Sample(self._name, begun_ns, time.monotonic_ns() - begun_ns, outcome, detail=detail)]  # type: ignore[arg-type]  # both are outcomes
        values: dict[str, float | None] = {"restarts": self._restarts}
        if use.alive:
            values |= {"rss": use.rss, "fds": use.fds, "threads": use.threads, "cpu": use.cpu}
        samples += [
            Sample(f"{self._name}.{name}", begun_ns, 0, "value", float(value))
            for name, value in values.items()
            if value is not None
        ]
        return samples

    async def close(self) -> None:
        """Nothing is held between samples."""

    def _look(self, now_ns: int, *, search: bool = False) -> _Use:
        if search or now_ns >= self._search_at_ns or any(not identity.same_process() for identity in self._known):
            self._search(now_ns)
        use = _Use()
        for identity, before in list(self._known.items()):
            stat = identity.stat()
            if stat is None:
                continue
            use.alive += 1
            use.rss += stat.rss_pages * _PAGE
            use.threads += stat.threads
            try:
                use.fds = None if use.fds is None else use.fds + len(proc.open_descriptors(identity.pid))
            except OSError:
                use.fds = None
            ticks = stat.utime + stat.stime
            if before is not None and now_ns > before[0]:
                use.cpu = (use.cpu or 0.0) + (ticks - before[1]) / _TICKS / ((now_ns - before[0]) / 1e9)
            self._known[identity] = (now_ns, ticks)
        return use

    def _search(self, now_ns: int) -> None:
        query = self._query
        try:
            found = find_processes(pid=query.pid, command=query.command, port=query.port, unit=query.unit)
        except TargetError as error:
            self.last_failure, found = str(error), []
        identities = [target.identity for target in found]
        if self._ever:
            self._restarts += len(set(identities) - self._ever)
        self._ever.update(identities)
        self._known = {identity: self._known.get(identity) for identity in identities}
        self._search_at_ns = now_ns + SEARCH_NS
