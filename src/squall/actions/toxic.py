"""One fault on a proxied route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squall.actions.base import Action, Look
from squall.actions.proxy_control import ProxyControl, ProxyGone

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Toxic"]


@dataclass(frozen=True)
class Toxic(Action, kind="toxic", recoverability="lease"):
    """Put one toxic on the proxy whose control socket this is; live connections feel it at once."""

    control: str
    route: str
    """For people: "route 127.0.0.1:8000 -> 127.0.0.1:8080"."""
    name: str
    type: str
    stream: str
    toxicity: float
    attributes: dict[str, Any]

    def do(self) -> tuple[int, ...]:  # noqa: D102 - as the base says
        ProxyControl(self.control).add_toxic(self.name, self.type, self.stream, self.toxicity, self.attributes)
        return ()

    def undo(self) -> None:  # noqa: D102
        try:
            ProxyControl(self.control).remove_toxic(self.name)
        except ProxyGone:
            return  # and its toxics with it

    def verify(self) -> Look:  # noqa: D102
        try:
            names = [toxic["name"] for toxic in ProxyControl(self.control).toxics()]
        except ProxyGone:
            return Look(normal=True, detail="the proxy has ended, and its faults with it")
        return Look(normal=self.name not in names, detail=f"the route has {', '.join(names) or 'no faults'}")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"toxic:{self.control}:{self.name}",)

    def describe(self) -> str:  # noqa: D102
        shown = ", ".join(f"{key}={value}" for key, value in self.attributes.items() if value not in (0, None, "", {}))
        share = f" on {self.toxicity:.0%} of connections" if self.toxicity < 1 else ""
        return f"put {self.type} ({shown}) {self.stream} on {self.route}{share}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"end the proxy of {self.route}"

    def become(self, new: Action, held: Sequence[int]) -> bool:  # noqa: ARG002 - it is reached by its socket
        """Change the toxic's attributes while it is on."""
        if not isinstance(new, Toxic) or (new.type, new.stream) != (self.type, self.stream):
            return False
        ProxyControl(self.control).update_toxic(self.name, new.toxicity, new.attributes)
        return True

    def counters(self) -> dict[str, int]:
        """What the proxy counted for this toxic; empty when the proxy is gone."""
        try:
            toxics = ProxyControl(self.control).toxics()
        except ProxyGone:
            return {}
        return next((dict(toxic["hits"]) for toxic in toxics if toxic["name"] == self.name), {})
