"""Filters on the interfaces of a network namespace, where the kernel cannot hold them by a descriptor (before 6.6)."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from squall.actions.base import Action, Look
from squall.errors import TargetError
from squall.kernel import namespaces
from squall.kernel.namespaces import NetworkNamespace
from squall.kernel.netlink import Netlink, NetlinkError
from squall.workers.network.interfaces import filters_named, remove_filters

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TcFilter"]

T = TypeVar("T")


@dataclass(frozen=True)
class TcFilter(Action, kind="tc-filter", recoverability="guarded"):
    """Stands for the filters of one name that a worker is going to make on the interfaces of a namespace; undo removes them.

    They do nothing once the worker's lease has lapsed. An interface's clsact goes with them where it was not there before
    and nobody else has come to use it.
    """

    name: str
    label: str
    namespace: dict[str, Any]
    """NetworkNamespace.to_json."""

    def do(self) -> tuple[int, ...]:  # noqa: D102
        return ()  # the worker makes them, for a program cannot be handed to another process

    def undo(self) -> None:  # noqa: D102
        def remove(netlink: Netlink) -> None:
            for link in netlink.links():
                with contextlib.suppress(NetlinkError):  # it went meanwhile; `verify` looks
                    remove_filters(netlink, link.index, self.name)

        with contextlib.suppress(TargetError):  # the namespace is gone, and all that was in it
            self._inside(remove)

    def verify(self) -> Look:  # noqa: D102
        def look(netlink: Netlink) -> list[str]:
            return [link.name for link in netlink.links() if filters_named(netlink, link.index, self.name)[0]]

        try:
            left = self._inside(look)
        except TargetError:
            return Look(normal=True, detail="the network namespace is gone")
        if left:
            return Look(normal=False, detail=f"there are filters {self.name} on {', '.join(left)}")
        return Look(normal=True, detail="no such filter is on any interface")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"tc-filter:{self.name}",)

    def describe(self) -> str:  # noqa: D102
        return f"have filters {self.name} on the interfaces of {self.label}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"remove the filters {self.name} of clsact from the interfaces of {self.label} (tc filter del)"

    def _inside(self, call: Callable[[Netlink], T]) -> T:
        fd = NetworkNamespace.from_json(self.namespace).open()

        def work() -> T:
            with Netlink() as netlink:
                return call(netlink)

        try:
            return namespaces.inside(fd, work)
        finally:
            os.close(fd)
