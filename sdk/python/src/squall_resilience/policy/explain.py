"""A chain drawn as it is now: what each link does there, by which settings, and how it stands."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squall_resilience.policy.order import ORDER, RANK
from squall_resilience.settings import Settings

if TYPE_CHECKING:
    from squall_resilience.pattern import Pattern
    from squall_resilience.policy.chain import Policy
    from squall_resilience.policy.trace import Trace

__all__ = ["Explanation", "LinkNow", "explain"]

TRACES_SHOWN = 5


@dataclass(frozen=True)
class LinkNow:
    """One link of a chain at this moment."""

    kind: str
    on: bool
    does: str
    why: str
    """Why it stands there."""
    settings: dict[str, object]
    """In seconds, ratios and counts; empty while it is off."""
    state: dict[str, float]
    """Its numbers, by metric without `resilience_` and the dependency."""
    stopped: int
    """Calls that stopped here."""


@dataclass(frozen=True)
class Explanation:
    """A chain, from the caller to the transport; `str()` draws it, `as_dict()` is the same as JSON values."""

    dependency: str
    links: tuple[LinkNow, ...]
    """The outermost first, as a call meets them; also those that are off."""
    source: str
    """Where the settings are from: "code", or a file."""
    last: tuple[Trace, ...]
    """The last faults."""

    def as_dict(self) -> dict[str, object]:
        """As JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        on = [link for link in self.links if link.on]
        off = [link.kind for link in self.links if not link.on]
        width = max([len(link.kind) for link in on] + [len("transport")])
        lines = [f"{self.dependency}, settings from {self.source}", "caller"]
        for link in on:
            lines += [f"  └─ {link.kind:<{width}}  {link.does}", *_details(link, width)]
        lines.append(f"  └─ {'transport':<{width}}  the call itself")
        if off:
            lines.append(f"off: {', '.join(off)}")
        if self.last:
            lines += ["last faults:", *(f"  {trace}" for trace in self.last[-TRACES_SHOWN:])]
        return "\n".join(lines)


def _details(link: LinkNow, width: int) -> list[str]:
    indent = "     " + " " * width + "  "
    told = {name: value for name, value in link.state.items() if value}
    if link.stopped:
        told["stopped here"] = link.stopped
    return [
        indent + ", ".join(f"{name} {_short(value)}" for name, value in each.items())
        for each in (link.settings, told)
        if each
    ]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def explain(policy: Policy) -> Explanation:
    """See Policy.explain."""
    stopped: dict[str, int] = {}
    for (link, _), number in policy.journal.counts.items():
        stopped[link] = stopped.get(link, 0) + number
    on = {each.kind for each in policy.links}
    shown = [_now(each.kind, each, stopped) for each in policy.links]
    shown += [_now(place.kind, None, stopped) for place in ORDER if place.kind not in on]
    return Explanation(policy.dependency, tuple(reversed(_in_order(shown))), policy.source, policy.traces)


def _in_order(shown: list[LinkNow]) -> list[LinkNow]:
    """Links that are off where they would be; the others stay as they are."""
    arranged = [link for link in shown if link.on]
    for link in (each for each in shown if not each.on):
        place = sum(1 for each in arranged if each.kind not in RANK or RANK[each.kind] < RANK[link.kind])
        arranged.insert(place, link)
    return arranged


def _now(kind: str, link: Pattern | None, stopped: dict[str, int]) -> LinkNow:
    place = ORDER[RANK[kind]] if kind in RANK else None
    settings = getattr(link, "settings", None)
    return LinkNow(
        kind=kind,
        on=link is not None,
        does=place.does if place else "the service's own",
        why=place.why if place else "where the service has put it",
        settings=_settings(settings) if isinstance(settings, Settings) else {},
        state=_state(link) if link is not None else {},
        stopped=stopped.get(kind, 0),
    )


def _settings(settings: Settings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _state(link: Pattern) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in link.samples():
        if sample.value != sample.value:
            continue
        labels = [value for name, value in sample.labels if name != "dependency"]
        name = sample.name.removeprefix("resilience_").removeprefix(f"{link.kind}_")
        found[" ".join([name, *labels])] = sample.value
    return found
