"""What of a process a settings file governs: policies, pools, and whatever else the service has registered.

A document is taken whole or refused whole: all of it is read and checked before the first value changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from squall_resilience.errors import Problem, SettingsError
from squall_resilience.events import Listener, Listeners, SettingsChanged, everyone
from squall_resilience.metrics import Registry, Sample
from squall_resilience.metrics import registry as process_registry
from squall_resilience.policy.forks import renewed_in_children
from squall_resilience.policy.overlay import differences, overlay
from squall_resilience.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall_resilience.policy.chain import Policy
    from squall_resilience.policy.settings import PolicySettings

__all__ = ["LiveSettings", "Section"]

S = TypeVar("S", bound=Settings)
Read = Callable[[object, str], tuple[Any, list[Problem]]]
DEPENDENCIES, POOLS = "dependencies", "pools"


@dataclass
class Section(Generic[S]):
    """One governed part of a document: where it stands, what the code says, and what takes new values."""

    path: str
    base: S
    """The code's own settings: in force where the document says nothing."""
    configure: Callable[[S], object]
    read: Callable[[object, str], tuple[S | None, list[Problem]]]
    now: S
    generation: int = 0
    changed_at: float = field(default_factory=time)
    source: str = "code"
    tells: bool = True
    """False where what is configured counts and tells its changes itself."""


class LiveSettings:
    """The parts of a process that a settings file changes while it runs, each registered once.

    `dependencies` holds policies, `pools` pools of connections, each by name; other sections are the service's own. A name
    that nobody registered is refused, for it is a slip of the pen more often than not; with `unknown="keep"` (one file for
    many services) it is passed over.
    """

    kind = "settings"

    def __init__(
        self,
        service: str = "",
        *,
        unknown: Literal["refuse", "keep"] = "refuse",
        listeners: Iterable[Listener] = (),
        registry: Registry | None = process_registry,
    ) -> None:
        self.service = self.dependency = service
        self.listeners = Listeners(*listeners)
        self.refused = 0
        """Documents that were refused."""
        self._unknown = unknown
        self._sections: dict[str, Section[Any]] = {}
        self._last: tuple[Mapping[str, object], str] | None = None
        self._lock = threading.RLock()
        renewed_in_children(self)
        if registry is not None:
            registry.add(self)

    def renew_locks(self) -> None:
        """See `forks`."""
        self._lock = threading.RLock()

    def add(self, *policies: Policy) -> None:
        """Policies, each under `dependencies` by its dependency's name; its settings now are the code's."""
        for policy in policies:
            self._register(f"{DEPENDENCIES}.{policy.dependency}", policy.settings, self._of(policy), tells=False)

    def _of(self, policy: Policy) -> Callable[[PolicySettings], None]:
        return lambda settings: policy.configure(settings, self._source)

    def pool(self, name: str, settings: S, configure: Callable[[S], object]) -> None:
        """A pool under `pools`; `configure(settings)` is called at once, and whenever its settings change."""
        self._register(f"{POOLS}.{name}", settings, configure)
        configure(self._sections[f"{POOLS}.{name}"].now)

    def section(self, name: str, settings: S, configure: Callable[[S], object], read: Read | None = None) -> None:
        """A section of the service's own; `configure(settings)` is called whenever it changes.

        `read(given, path)` gives the settings, or None and all problems; by default what is given is laid over `settings`.
        """
        self._register(name, settings, configure, read)

    _source = "code"

    def _register(
        self, path: str, settings: S, configure: Callable[[S], object], read: Read | None = None, *, tells: bool = True
    ) -> None:
        def lay_over(given: object, at: str) -> tuple[S | None, list[Problem]]:
            return overlay(settings, given, at)

        with self._lock:
            if path in self._sections or path in {DEPENDENCIES, POOLS}:
                raise ValueError(f"{path} is governed already; each part of a settings file has one owner")
            self._sections[path] = Section(path, settings, configure, read or lay_over, settings, tells=tells)
            if self._last is not None:  # registered late: what was read before holds for it too
                with suppress(SettingsError):  # told; the code's own settings hold
                    self.apply(*self._last)

    @property
    def sections(self) -> tuple[Section[Any], ...]:
        """What is governed, in the order of registration."""
        return tuple(self._sections.values())

    def check(self, document: object, source: str = "settings") -> tuple[dict[str, Any], list[Problem]]:
        """What each governed part would be, by path, and every problem; nothing is changed."""
        if not isinstance(document, Mapping):
            return {}, [Problem(source, repr(document), "a mapping of sections")]
        problems = [] if self._unknown == "keep" else list(self._strangers(document))
        planned: dict[str, Any] = {}
        for section in self._sections.values():
            given = _at(document, section.path)
            if given is None:
                planned[section.path] = section.base
                continue
            settings, wrong = section.read(given, section.path)
            problems += wrong
            if settings is not None:
                planned[section.path] = settings
        return planned, problems

    def _strangers(self, document: Mapping[str, object]) -> Iterator[Problem]:
        tops = sorted({path.partition(".")[0] for path in self._sections} | {DEPENDENCIES, POOLS})
        for top, below in document.items():
            if top not in tops:
                yield Problem(str(top) or "''", "this section", f"one of {', '.join(tops)}")
            elif top in {DEPENDENCIES, POOLS} and below is not None:
                known = sorted(path.partition(".")[2] for path in self._sections if path.startswith(f"{top}."))
                if not isinstance(below, Mapping):
                    yield Problem(str(top), repr(below), "a mapping of names to settings")
                    continue
                for name in below:
                    if name not in known:
                        yield Problem(
                            f"{top}.{name}", "this name", f"one of {', '.join(known) or 'none: none is there'}"
                        )

    def apply(self, document: object, source: str = "settings") -> tuple[str, ...]:
        """Make a whole document true, and say the paths of what changed.

        Raises SettingsError with all problems when anything of it is wrong, or when a part could not take its new values
        (those that had taken theirs are put back): then the old values stay.
        """
        with self._lock:
            planned, problems = self.check(document, source)
            if not problems:
                problems = self._take(planned, source)
            if problems:
                error = SettingsError(tuple(problems), source=source)
                self.refuse(str(error), source)
                raise error
            assert isinstance(document, Mapping)  # noqa: S101 - `check` has seen to it
            self._last = document, source
            return self._settle(planned, source)

    def _take(self, planned: dict[str, Any], source: str) -> list[Problem]:
        """Configure what changes; all of it, or none."""
        taken: list[Section[Any]] = []
        self._source = source
        for path, new in planned.items():
            section = self._sections[path]
            if new == section.now:
                continue
            try:
                section.configure(new)
            except Exception as error:  # noqa: BLE001 - whatever a service's own code raises, the old values stay
                for each in reversed([*taken, section]):
                    each.configure(each.now)
                return [Problem(path, f"this ({error!r})", "something that its owner could take")]
            taken.append(section)
        return []

    def _settle(self, planned: dict[str, Any], source: str) -> tuple[str, ...]:
        changed: list[str] = []
        for path, new in planned.items():
            section = self._sections[path]
            if new == section.now:
                continue
            paths = tuple(differences(section.now, new, path)) if isinstance(new, Settings) else (path,)
            section.now, section.source = new, source
            section.generation, section.changed_at = section.generation + 1, time()
            changed += paths
            if section.tells:
                self._tell(SettingsChanged(kind=self.kind, dependency=_name(path), source=source, changed=paths))
        return tuple(changed)

    def refuse(self, why: str, source: str) -> None:
        """Count and tell a document that is not applied."""
        self.refused += 1
        self._tell(SettingsChanged(kind=self.kind, dependency=self.service, source=source, refused=why))

    def _tell(self, event: SettingsChanged) -> None:
        self.listeners.tell(event)
        everyone.tell(event)

    def samples(self) -> Iterator[Sample]:
        """When each part that does not count for itself changed last, how often, and how many documents were refused."""
        for section in list(self._sections.values()):
            if section.tells:
                yield from changes(_name(section.path), section.source, section.changed_at, section.generation)
        labels = (("dependency", self.service),)
        yield Sample(
            "resilience_settings_refused_total", self.refused, labels, "counter",
            "Settings documents that were refused whole; the old values stayed.",
        )  # fmt: skip


def changes(dependency: str, source: str, changed_at: float, generation: int) -> Iterator[Sample]:
    """The last configuration change as numbers."""
    yield Sample(
        "resilience_settings_changed_timestamp_seconds",
        changed_at,
        (("dependency", dependency), ("source", source)),
        help="When these settings changed last, in seconds since 1970; `source` is the file, or code.",
    )
    yield Sample(
        "resilience_settings_generation",
        generation,
        (("dependency", dependency),),
        help="How often these settings have changed since the process began.",
    )


def _name(path: str) -> str:
    return path.removeprefix(f"{DEPENDENCIES}.").removeprefix(f"{POOLS}.")


def _at(document: Mapping[str, object], path: str) -> object:
    top, _, name = path.partition(".")
    below = document.get(top)
    if not name:
        return below
    return below.get(name) if isinstance(below, Mapping) else None
