"""The `runtime` probe: what a language runtime goes through, seen from outside the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import time
from typing import TYPE_CHECKING

from squall.actions.kernel_worker import published
from squall.actions.worker import end_workers, spawn, tell
from squall.errors import InputError, SquallError, TargetError
from squall.kernel.proc import read_stat
from squall.probes.call import prepare
from squall.probes.exchange import Exchange
from squall.probes.outcomes import of_failure
from squall.probes.pprof import HeapProfile, ProfileError
from squall.probes.samples import Sample
from squall.probes.spec import HttpRequest
from squall.probes.wire import Malformed
from squall.targets import find_processes

if TYPE_CHECKING:
    from squall.probes.spec import Probe, RuntimeQuery
    from squall.targets import ProcessIdentity

__all__ = ["GAUGES", "RuntimeProbe"]

GAUGES = {
    "gc": ("gc", 1), "parked": ("parked", 1), "idlePs": ("idle_processors", 1), "lateTimers": ("late_timers", 1),
    "loopLagMs": ("lag_ns", 1e6), "gcPauseMs": ("gc_pause_ns", 1e6),
}  # fmt: skip
"""Each gauge with what the worker calls it and what it is divided by; `heap` (bytes) comes from the profile."""
_LOOK_S = 0.002
_PROFILE_BYTES_MOST = 16 << 20
_HTTP_OK = 200


class _Watch:
    """The worker that watches one process."""

    def __init__(self, identity: ProcessIdentity, name: str, query: RuntimeQuery) -> None:
        self.identity = identity
        self._token = f"probe-{os.getpid()}/{name}.{identity.pid}"
        config = {
            "pid": identity.pid, "start_ticks": identity.start_ticks, "name": name,
            "long_wait_ns": int(query.parked), "late_timer_ns": int(query.late),
        }  # fmt: skip
        self._life_line, self._pid = spawn("squall.workers.runtime", self._token, [json.dumps(config)])
        self._asked = 0

    async def take(self) -> dict[str, int]:
        """What has happened since it was asked last; SquallError when the worker is gone or its programs lapsed."""
        self._asked += 1
        if not tell(self._life_line, {"take": self._asked}):
            raise SquallError("what watched the runtime has ended")
        while True:
            stat = read_stat(self._pid)
            if stat is None or stat.gone:
                raise SquallError("what watched the runtime has ended")
            counts = published(self._pid)
            if counts.get("taken") == self._asked:
                if counts.get("lapses"):
                    raise SquallError("the runtime was not watched for a while: this machine is too busy")
                return counts
            await asyncio.sleep(_LOOK_S)

    def end(self) -> None:
        """Take the programs off."""
        os.close(self._life_line)
        end_workers(self._token)


class RuntimeProbe:
    """Watches the one process that matches its query, and its successor when it is gone. Needs root, for uprobes.

    The first sample of a process begins to watch it and has no gauges that count since the last.
    """

    def __init__(self, probe: Probe) -> None:
        if probe.runtime is None:
            raise InputError(f"{probe.name}: not a runtime probe")
        self._name, self._query, self._timeout_s = probe.name, probe.runtime, probe.timeout.seconds
        self._watch: _Watch | None = None
        self._profile: HeapProfile | None = None
        self._heap = None
        if probe.runtime.pprof is not None:
            request = HttpRequest(url=probe.runtime.pprof, success=("2xx",))
            self._heap = Exchange(prepare(request, where=probe.name, close=True), body_most=_PROFILE_BYTES_MOST)
        self.last_failure = ""
        self.growing = ""
        """The function whose memory grew most since the first profile, with how much, for people."""

    def series(self) -> tuple[str, ...]:
        """Being watched, and its gauges."""
        return (self._name, *(f"{self._name}.{gauge}" for gauge in (*GAUGES, "heap")))

    async def sample(self) -> list[Sample]:
        """One look."""
        begun_ns = time.monotonic_ns()
        values: dict[str, float] = {}
        try:
            async with asyncio.timeout(self._timeout_s):
                values |= await self._runtime()
                if self._heap is not None:
                    values["heap"] = await self._in_use(self._heap)
        except (OSError, Malformed) as error:
            self.last_failure = str(error) or f"no answer within {self._timeout_s:g} s"
            outcome, detail = of_failure(error)
        except (SquallError, ProfileError) as error:
            self.last_failure = str(error)
            outcome, detail = "error", errno.ESRCH if isinstance(error, TargetError) else errno.EPROTO
        else:
            outcome, detail = "ok", 0
        took_ns = time.monotonic_ns() - begun_ns
        return [
            Sample(self._name, begun_ns, took_ns, outcome, detail=detail),
            *(Sample(f"{self._name}.{name}", begun_ns, 0, "value", value) for name, value in values.items()),
        ]

    async def _runtime(self) -> dict[str, float]:
        if self._watch is not None and not self._watch.identity.same_program():
            await self.close()
        if self._watch is None:
            query = self._query
            found = find_processes(pid=query.pid, command=query.command, port=query.port, unit=query.unit)
            if len(found) > 1:
                raise TargetError(f"{len(found)} processes match: a runtime probe watches one")
            self._watch = await asyncio.to_thread(_Watch, found[0].identity, found[0].command, query)
            counts = await self._watch.take()
            return {"idlePs": float(counts["idle_processors"])} if "idle_processors" in counts else {}
        counts = await self._watch.take()
        return {gauge: counts[name] / unit for gauge, (name, unit) in GAUGES.items() if name in counts}

    async def _in_use(self, heap: Exchange) -> float:
        answer = await heap.run()
        if answer.status != _HTTP_OK:
            raise ProfileError(f"the profile's address answers with status {answer.status}")
        profile = HeapProfile.read(bytes(answer.body))
        self._profile = self._profile or profile
        name, grown = profile.grown_most(self._profile)
        self.growing = f"{name} (+{grown} bytes)" if name else ""
        return float(profile.bytes_in_use)

    async def close(self) -> None:
        """Stop watching."""
        watch, self._watch = self._watch, None
        if watch is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(watch.end)
