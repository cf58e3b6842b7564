"""What an experiment has switched on in this process, looked at when a request arrives and at most once in 20 ms.

General layout: `Driven` is one name in one process. Each look goes the whole way (folder, HALT, lease, faults), so that
no order of events in the folder can leave a fault on; between looks, the lease itself is held against the clock.
"""

from __future__ import annotations

import atexit
import logging
import threading
from time import CLOCK_BOOTTIME, CLOCK_MONOTONIC, clock_gettime_ns
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from squall_resilience.chaos import folder as place
from squall_resilience.chaos.control import CONTROL_MOST, Malformed, parse
from squall_resilience.chaos.decision import Source
from squall_resilience.chaos.registration import Registration
from squall_resilience.forking import survive_forks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Driven", "driven"]

logger = logging.getLogger("squall_resilience.chaos")
_LOOK_NS = 20_000_000
_LEASE_BYTES = 8
_AHEAD_MOST_NS = 10_000_000_000
_NONE: tuple[Source, ...] = ()


class Driven:
    """The faults that are on for one name, and the counts of those that hit; safe under threads and forks."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._control, self._lease = folder / f"{name}.json", folder / f"{name}.lease"
        self.lock = threading.RLock()
        self._look_at_ns = self._until_ns = 0
        self._sources = _NONE
        self._version: tuple[int, int] | None = None
        self._parsed = _NONE
        self._said = ""
        self._halted = False
        self.registration: Registration | None = None
        self._register()
        survive_forks(self)

    def sources(self) -> tuple[Source, ...]:
        """The faults that are on now, in their order; whatever is wrong in the folder, none."""
        if clock_gettime_ns(CLOCK_MONOTONIC) >= self._look_at_ns:
            self._look()
        if not self._sources:
            return _NONE
        ahead = self._until_ns - clock_gettime_ns(CLOCK_BOOTTIME)
        return self._sources if 0 < ahead <= _AHEAD_MOST_NS else _NONE

    @property
    def halted(self) -> bool:
        """Whether HALT was there at the last look."""
        return self._halted

    def _look(self) -> None:
        if not self.lock.acquire(blocking=False):
            return  # another thread is looking: what was seen last holds for so long
        try:
            self._look_at_ns = clock_gettime_ns(CLOCK_MONOTONIC) + _LOOK_NS
            self._halted = place.halted(self.folder)
            self._sources = _NONE if self._halted else self._seen()
        finally:
            self.lock.release()

    def _seen(self) -> tuple[Source, ...]:
        try:
            place.check_folder(self.folder)
            if self.registration is None:
                self._register()
            lease, _ = place.read(self._lease, _LEASE_BYTES)
            self._until_ns = int.from_bytes(lease, "little") if len(lease) == _LEASE_BYTES else 0
            ahead = self._until_ns - clock_gettime_ns(CLOCK_BOOTTIME)
            return self._faults() if 0 < ahead <= _AHEAD_MOST_NS else _NONE
        except FileNotFoundError:
            self._version, self._parsed = None, _NONE
        except Malformed as error:
            self._say(f"{self._control} is malformed: {error}")
        except (OSError, place.Unsafe) as error:
            self._say(str(error))
        return _NONE

    def _faults(self) -> tuple[Source, ...]:
        found = self._control.lstat()
        version = (found.st_mtime_ns, found.st_ino)
        if version != self._version:
            before = {(one.rule.fault, one.rule.seed): one for one in self._parsed}
            self._version, self._parsed = version, _NONE  # a file that is refused is not read again either
            data, held = place.read(self._control, CONTROL_MOST)
            rules = parse(data)
            known = {key: before[key] for key in ((rule.fault, rule.seed) for rule in rules) if key in before}
            self._parsed = tuple(
                known[rule.fault, rule.seed].given(rule) if (rule.fault, rule.seed) in known else Source(rule)
                for rule in rules
            )
            self._version = (held.st_mtime_ns, held.st_ino)
        return self._parsed

    def _register(self) -> None:
        """Make this process known; where that cannot be, it is not driven, and says why once."""
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            place.check_folder(self.folder)
            self.registration = Registration(self.folder, self.name)
        except (OSError, place.Unsafe) as error:
            self._say(str(error))

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            logger.warning("chaos: %s cannot be driven: %s", self.name, what)

    def forked(self) -> None:
        """A child of a fork is another process: it has a registration of its own, from its first request on."""
        held, self.registration = self.registration, None
        if held is not None:
            held.remove()
        self._look_at_ns = 0

    def remove(self) -> None:
        """Take this process's registration away."""
        held, self.registration = self.registration, None
        if held is not None:
            held.remove()

    def __del__(self) -> None:
        self.remove()


_all: WeakValueDictionary[tuple[Path, str], Driven] = WeakValueDictionary()
_all_lock = threading.Lock()


def driven(folder: Path, name: str) -> Driven:
    """The one of this name in this process: middlewares that share a name share it."""
    with _all_lock:
        found = _all.get((folder, name))
        if found is None:
            found = _all[folder, name] = Driven(folder, name)
        return found


def _at_the_end() -> None:
    for one in list(_all.values()):
        one.remove()


atexit.register(_at_the_end)
