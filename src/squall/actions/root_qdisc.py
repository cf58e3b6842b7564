"""A queueing discipline of Squall's own at the root of an interface's queue."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from squall.actions.base import Action, Look
from squall.errors import CannotInject, TargetError
from squall.kernel import namespaces
from squall.kernel.namespaces import NetworkNamespace
from squall.kernel.netlink import Netlink, NetlinkError, Qdisc
from squall.kernel.queues import Layer, is_root, put

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RootQdisc"]

T = TypeVar("T")
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
"""What the kernel says of a queue that is not there (any more), or whose handle is another."""


@dataclass(frozen=True)
class RootQdisc(Action, kind="root-qdisc", recoverability="guarded"):
    """Put a queue of ours, its root first, in the place of an interface's own.

    What the kernel itself had put there comes back when ours is taken away; what somebody has configured is refused in
    `prepare`, and by the kernel itself in `do`.
    """

    netns: dict[str, Any]
    interface: str
    ifindex: int
    layers: tuple[Layer, ...]
    """(qdisc or class, kind, parent, handle, TCA_OPTIONS in hex), the root first: see kernel.queues.Layer."""
    before: str = field(default="", compare=False)
    """What was there: a kind that the kernel puts there by itself. Filled in by `prepare`."""

    @property
    def _handle(self) -> int:
        return self.layers[0][3]

    def prepare(self) -> RootQdisc:  # noqa: D102 - as the base says
        root = self._inside(self._root)
        if root is None:
            raise TargetError(f"the interface {self.interface} is gone")
        if root.handle:
            raise CannotInject(
                f"{self.interface} has a queue that somebody configured ({root.kind} {root.handle >> 16:x}:): it is not replaced"
            )
        return replace(self, before=root.kind)

    def do(self) -> tuple[int, ...]:  # noqa: D102
        self._inside(self._make)
        return ()

    def _make(self, netlink: Netlink) -> None:
        made = False
        try:
            for layer in self.layers:
                put(netlink, self.ifindex, layer)
                made = True
        except NetlinkError as error:
            if made:
                netlink.remove_qdisc(self.ifindex, handle=self._handle)
            kinds = " with ".join(layer[1] for layer in self.layers)
            raise CannotInject(f"{kinds} cannot be put on {self.interface}: {error.strerror}") from error

    def undo(self) -> None:
        """Take ours away, by its handle: another root is left as it is."""
        try:
            self._inside(self._remove)
        except TargetError:  # the namespace is gone, and the interface with it
            return

    def _remove(self, netlink: Netlink) -> None:
        root = self._root(netlink)
        if root is None or root.handle != self._handle:
            return
        try:
            netlink.remove_qdisc(self.ifindex, handle=self._handle)
        except NetlinkError as error:
            if error.errno not in _GONE:
                raise

    def verify(self) -> Look:  # noqa: D102
        try:
            root = self._inside(self._root)
        except TargetError:
            return Look(normal=True, detail=f"the network namespace of {self.interface} is gone")
        if root is None:
            return Look(normal=True, detail=f"{self.interface} is gone")
        if root.handle == self._handle:
            return Look(normal=False, detail=f"{self.interface} still has {root.kind} {root.handle >> 16:x}:")
        return Look(normal=True, detail=f"{self.interface} has {root.kind} again")

    def become(self, new: Action, held: Sequence[int]) -> bool:  # noqa: ARG002
        """Give its parts other parameters; what waits in them stays."""
        if not isinstance(new, RootQdisc) or new != replace(self, layers=new.layers):
            return False
        if [layer[:4] for layer in new.layers] != [layer[:4] for layer in self.layers]:
            return False
        changed = [layer for layer, old in zip(new.layers, self.layers, strict=True) if layer != old]

        def change(netlink: Netlink) -> None:
            for layer in changed:
                put(netlink, self.ifindex, layer, new=False)

        self._inside(change)
        return True

    def _root(self, netlink: Netlink) -> Qdisc | None:
        """The root queue; None when the interface is gone, or another one has its number."""
        named = any(link.index == self.ifindex and link.name == self.interface for link in netlink.links())
        if not named:
            return None
        return next((one for one in netlink.qdiscs(self.ifindex) if is_root(one)), None)

    def _inside(self, call: Callable[[Netlink], T]) -> T:
        fd = NetworkNamespace.from_json(self.netns).open()

        def work() -> T:
            with Netlink() as netlink:
                return call(netlink)

        try:
            return namespaces.inside(fd, work)
        finally:
            os.close(fd)

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"qdisc:{NetworkNamespace.from_json(self.netns).key}:{self.ifindex}",)

    def describe(self) -> str:  # noqa: D102
        return f"put {' with '.join(layer[1] for layer in self.layers)} in the place of the queue of {self.interface}"

    def describe_undo(self) -> str:  # noqa: D102
        came_back = f"; {self.before} comes back by itself" if self.before else ""
        return f"tc qdisc del dev {self.interface} root handle {self._handle >> 16:x}:{came_back}"
