"""tcp.*, http.* and grpc.* by Squall's own proxy on a route."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from squall.actions import Action, ProxyRoute, RouteDown, Toxic
from squall.faults.connections import ConnectionFault
from squall.faults.grpc import GrpcFault
from squall.faults.http import HttpFault
from squall.faults.tcp import Down
from squall.injectors.base import Capability, Host, Plan, Refusal, Site
from squall.proxy.from_fault import accuracy_of, toxic_of
from squall.targets import RouteTarget

if TYPE_CHECKING:
    from squall.actions import Recoverability
    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["ProxyInjector", "unread"]


class ProxyInjector:
    """A proxy of the run's own listens for the length of the run; the fault is a toxic that comes and goes on it."""

    mechanism: ClassVar[str] = "proxy"
    faults: ClassVar[tuple[str, ...]] = (
        "tcp.latency", "tcp.bandwidth", "tcp.slow_close", "tcp.timeout", "tcp.reset", "tcp.slicer", "tcp.limit_data", "tcp.down",
        "http.delay", "http.abort", "http.replace", "http.patch", "grpc.delay", "grpc.abort",
    )  # fmt: skip
    summary: ClassVar[str] = (
        "Squall's proxy: a delay's median error is about 0.2 ms, never early; live connections feel a change at once"
    )
    recoverability: ClassVar[Recoverability] = "lease"

    def capable(self, host: Host) -> Capability:  # noqa: D102 - as the protocol says
        return Capability(host.proxy, "" if host.proxy else "the proxy needs Linux's epoll and splice")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: D102
        if not isinstance(target, RouteTarget):
            return Refusal(self.mechanism, f"faults a route, not a {target.kind}")
        given = fault.selection() if isinstance(fault, ConnectionFault) else ()
        if given:
            return Refusal(self.mechanism, f"all of a route's connections are meant: leave out `{'`, `'.join(given)}`")
        name = re.sub(r"[^A-Za-z0-9.]+", "-", target.listen).strip("-")
        control = str(site.folder / f"proxy-{name}.sock")
        route = ProxyRoute(f"{site.run}/proxy-{name}", target.listen, target.upstream, control, site.seed)
        action: Action
        if isinstance(fault, Down):
            action = RouteDown(control, target.label)
        else:
            toxic = toxic_of(fault)
            action = Toxic(
                control, target.label, site.fault, toxic.type, toxic.stream, toxic.toxicity, toxic.attributes
            )
        return Plan(
            self.mechanism, (action,), accuracy=accuracy_of(fault), setup=(route,),
            accuracy_ns=200_000, cost=1, not_covered=(f"clients that connect to {target.upstream} without the route", *unread(fault)),
        )  # fmt: skip


def unread(fault: Fault) -> tuple[str, ...]:
    """What passes the proxy and cannot be hit by this fault."""
    if not isinstance(fault, HttpFault | GrpcFault):
        return ()
    return (
        "TLS streams pass unharmed and are counted: they are not HTTP to the proxy",
        *(("gRPC-Web, and calls whose content type is not application/grpc",) if isinstance(fault, GrpcFault) else ()),
    )
