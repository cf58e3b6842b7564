"""A service that cannot be reached."""

from __future__ import annotations

from dataclasses import dataclass

from squall.actions.base import Action, Look
from squall.actions.proxy_control import ProxyControl, ProxyGone

__all__ = ["RouteDown"]


@dataclass(frozen=True)
class RouteDown(Action, kind="route-down", recoverability="lease"):
    """The route's port refuses, and its open connections are closed."""

    control: str
    route: str

    def do(self) -> tuple[int, ...]:  # noqa: D102 - as the base says
        ProxyControl(self.control).disable()
        return ()

    def undo(self) -> None:  # noqa: D102
        try:
            ProxyControl(self.control).enable()
        except ProxyGone:
            return

    def verify(self) -> Look:  # noqa: D102
        try:
            enabled = ProxyControl(self.control).stats()["enabled"]
        except ProxyGone:
            return Look(normal=True, detail="the proxy has ended")
        return Look(normal=bool(enabled), detail="the route is open" if enabled else "the route is closed")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"down:{self.control}",)

    def describe(self) -> str:  # noqa: D102
        return f"close {self.route}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"end the proxy of {self.route}; clients may then connect to the service itself"
