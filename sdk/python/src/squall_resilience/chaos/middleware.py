"""What the middlewares for ASGI, WSGI and gRPC share: the sources of faults in their order, and what a hit costs.

A request that nothing can hit costs one attribute (off), or a look at the clock (driven, with nothing on).
"""

from __future__ import annotations

import os
import threading
import time
from time import CLOCK_BOOTTIME, CLOCK_MONOTONIC, clock_gettime_ns
from typing import TYPE_CHECKING

from squall_resilience.chaos.decision import Hit, Rule, Seen, Source, header_says
from squall_resilience.chaos.driven import driven
from squall_resilience.chaos.folder import control_folder, halted
from squall_resilience.chaos.settings import ChaosSettings
from squall_resilience.chaos.telemetry import Injected, Telling, injected
from squall_resilience.errors import Problem, SettingsError
from squall_resilience.forking import survive_forks
from squall_resilience.metrics import Registry
from squall_resilience.metrics import registry as process_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from squall_resilience.chaos.driven import Driven

__all__ = ["Chaos"]

_KILL = "SQUALL_CHAOS"
_LOOK_NS = 20_000_000
_HTTP_LEAST = 200
_NONE: tuple[Source, ...] = ()
_UNSET = ChaosSettings()


class Chaos:
    """Chaos inside one service, whatever carries its requests. Safe under threads and forks.

    `settings` None: those of the environment. The folder and the clock are the process's own unless given.
    Raises SettingsError for settings that cannot be used.
    """

    def __init__(
        self,
        settings: ChaosSettings | None = None,
        *,
        grpc: bool = False,
        registry: Registry | None = process_registry,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._grpc, self._clock = grpc, clock
        self._folder = folder if folder is not None else control_folder()
        self.lock = threading.RLock()
        self.killed = os.environ.get(_KILL, "").strip().lower() == "off"
        self._numbered = Source(Rule())
        self._own: Source | None = None
        self._injected = Injected("")
        self._telling: Telling | None = None
        self._end, self._end_boot_ns = float("inf"), 1 << 63
        self._halt_seen, self._halt_look_ns = False, 0
        self._registry = registry
        self._driven: Driven | None = None
        self.settings = _UNSET
        settings = settings if settings is not None else ChaosSettings.from_environment()
        self.configure(settings)
        may_be_driven = settings.driven and not self.killed
        self._driven = driven(self._folder, settings.target) if may_be_driven else None
        self.off = self._off()
        survive_forks(self)

    def forked(self) -> None:
        """A child goes on with what it has: nothing here belongs to a thread."""

    def configure(self, settings: ChaosSettings) -> None:
        """Apply new settings live; draws go on where they were. Name, service and `driven` stay as they were made.

        Raises SettingsError, and nothing is changed.
        """
        if not self._grpc and settings.abort_status is not None and settings.abort_status < _HTTP_LEAST:
            problem = Problem("abort_status", repr(settings.abort_status), "a status from 200 to 599, or null")
            raise SettingsError((problem,), source="ChaosSettings")
        first = self.settings is _UNSET
        if not first:
            self._keeps_its_name(settings)
        end = settings.end
        with self.lock:
            self.settings, self.secret = settings, settings.secret
            self.strips = settings.header.lower() if settings.edge == "strip" else ""
            if end is not None:
                left = end - self._clock()
                self._end, self._end_boot_ns = end, clock_gettime_ns(CLOCK_BOOTTIME) + int(left * 1e9)
            rule = _rule_of(settings)
            on = settings.enabled and not self.killed
            self._numbered = self._numbered.given(rule)
            if self._telling is None and (on or (settings.driven and not self.killed)):
                self._injected, self._telling = injected(settings.service, self._registry), Telling(settings.service)
            self._own = self._numbered if on else None
            self.off = self._off()

    def _keeps_its_name(self, new: ChaosSettings) -> None:
        old = self.settings
        fixed = ("driven", *(("service",) if old.service else ()), *(("name",) if old.driven else ()))
        problems = tuple(
            Problem(name, repr(getattr(new, name)), f"{getattr(old, name)!r}: it stays as it was made")
            for name in fixed
            if getattr(old, name) != getattr(new, name)
        )
        if problems:
            raise SettingsError(problems, source="ChaosSettings")

    def _off(self) -> bool:
        """Whether no request can be hit until somebody configures it otherwise."""
        return self._own is None and self._driven is None

    def sources(self) -> tuple[Source, ...]:
        """What could hit a request now, in the order in which it is asked; empty: leave it alone."""
        by_experiment = _NONE
        if self._driven is not None:
            by_experiment = self._driven.sources()
            if self._driven.halted:
                return _NONE
        elif self._own is not None and self._halted():
            return _NONE
        own = self._own
        if own is None or self._ended():
            return by_experiment
        return (*by_experiment, own)

    def _halted(self) -> bool:
        now = clock_gettime_ns(CLOCK_MONOTONIC)
        if now >= self._halt_look_ns:
            self._halt_look_ns = now + _LOOK_NS
            self._halt_seen = halted(self._folder)
        return self._halt_seen

    def _ended(self) -> bool:
        if self._clock() < self._end and clock_gettime_ns(CLOCK_BOOTTIME) < self._end_boot_ns:
            return False
        self._end = float("-inf")  # for good: a clock that jumps back begins nothing anew
        return True

    def ended(self) -> None:
        """The server ends: it cannot be driven any more, unless a request comes after all."""
        if self._driven is not None:
            self._driven.remove()

    def consider(self, sources: tuple[Source, ...], seen: Seen) -> Hit | None:
        """What happens to this request, by the first source that hits it; counts, and changes nothing else."""
        refused, hit = False, None
        for source in sources:
            rule = source.rule
            if rule.require_header:
                if self.strips:
                    continue
                says = header_says(seen.values(rule.header), self.secret, self._clock())
                refused = refused or says == "refused"
                if says != "yes":
                    continue
            if rule.matches(seen):
                hit = source.decide()
                if hit is not None:
                    break
        self._count(hit, refused=refused, on=sources[0].rule.fault != "")
        return hit

    def _count(self, hit: Hit | None, *, refused: bool, on: bool) -> None:
        if refused or hit is not None:
            self._injected.count(hit.reason if hit is not None else None, refused=refused)
        live = self._driven.registration if self._driven is not None else None
        if live is not None and (on or refused):
            by_experiment = hit is not None and hit.rule.fault != ""
            delayed = hit.delay_ns if hit is not None and by_experiment and hit.status is None else None
            aborted = hit is not None and by_experiment and hit.status is not None
            live.count(requests=int(on), refused=int(refused), delay_ns=delayed, aborted=aborted)

    def holds(self, hit: Hit) -> bool:
        """Whether what hit a request is still on."""
        return any(source.rule.fault == hit.rule.fault for source in self.sources())

    def tell(self, hit: Hit, seen: Seen) -> AbstractContextManager[object]:
        """Log a hit; returns its span, to be entered for as long as the fault lasts."""
        assert self._telling is not None  # noqa: S101 - there is no hit before there is something to hit with
        return self._telling.tell(hit, seen)


def _rule_of(settings: ChaosSettings) -> Rule:
    return Rule(
        require_header=settings.require_header,
        header=settings.header,
        sample=settings.sample,
        method=settings.method,
        path=settings.path,
        delay_min_ns=round(settings.delay_min * 1e9),
        delay_max_ns=round(settings.delay_max * 1e9),
        abort_status=settings.abort_status,
        abort_share=settings.abort_share,
        seed=settings.seed,
    )
