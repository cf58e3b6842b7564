"""Which rules hit the requests of one connection: matched, drawn and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.proxy.http.rules import Rule

if TYPE_CHECKING:
    from random import Random

    from squall.proxy.flow import Flow
    from squall.proxy.http.heads import RequestHead
    from squall.proxy.http.rules import DelayRule
    from squall.proxy.route import Proxy
    from squall.proxy.toxics import Toxic

__all__ = ["Chooser"]


class Chooser:
    """Draws depend on the seed, the connection and the toxic's name only."""

    def __init__(self, proxy: Proxy, up: Flow, down: Flow) -> None:
        self._proxy, self._up, self._down = proxy, up, down
        self._randoms: dict[str, Random] = {}
        self._counted: set[int] = set()

    def chosen(self, request: RequestHead) -> list[tuple[Toxic, Rule]]:
        """The rules that hit this request, in order: matched, and drawn."""
        hit = []
        for toxic in self._proxy.toxics:
            rule = toxic.attributes
            if not isinstance(rule, Rule) or not rule.matches(request) or not self._drawn(toxic, rule.percent / 100):
                continue
            flow = self._up if toxic.stream == "upstream" else self._down
            if self._proxy.is_on(flow, toxic):
                hit.append((toxic, rule))
        return hit

    def _drawn(self, toxic: Toxic, share: float) -> bool:
        return share >= 1 or self.random(toxic).random() < share

    def random(self, toxic: Toxic) -> Random:
        """The generator for this toxic's draws on this connection."""
        if toxic.name not in self._randoms:
            self._randoms[toxic.name] = self._up.random(f"{toxic.name}/requests")
        return self._randoms[toxic.name]

    def hit(self, toxic: Toxic, size: int) -> None:
        """Count a message that a toxic hits."""
        hits = toxic.hits
        hits.requests += 1
        hits.chunks += 1
        hits.bytes += size
        if id(toxic) not in self._counted:
            self._counted.add(id(toxic))
            hits.connections += 1

    def delay_ns(self, toxic: Toxic, rule: DelayRule) -> int:
        """One draw of a delay."""
        base_ns, jitter_ns = rule.delay * 1_000_000 + rule.delay_ns, rule.jitter * 1_000_000 + rule.jitter_ns
        return max(0, base_ns + int(jitter_ns * self.random(toxic).uniform(-1, 1))) if jitter_ns else base_ns
