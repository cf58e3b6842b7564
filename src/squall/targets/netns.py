"""A network namespace of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from squall.errors import TargetError
from squall.kernel import namespaces
from squall.kernel.namespaces import NetworkNamespace

__all__ = ["NetnsTarget", "find_netns"]

_held: dict[tuple[int, int], int] = {}
"""Namespaces without a cookie are kept by a descriptor: while it is open, no other one gets the same inode."""


@dataclass(frozen=True, slots=True)
class NetnsTarget:
    """A network namespace with every process in it; never the machine's own nor Squall's."""

    kind: ClassVar[str] = "netns"
    name: str
    namespace: NetworkNamespace

    @property
    def key(self) -> str:
        """One word for it."""
        return self.namespace.key

    @property
    def label(self) -> str:
        """For people."""
        return f"network namespace {self.name}"

    def alive(self) -> bool:
        """Whether the same namespace can still be reached."""
        return self.namespace.there()

    def processes(self) -> list[int]:
        """The pids that are in it now and can be seen, ascending."""
        return namespaces.processes_in(self.namespace)

    def to_json(self) -> dict[str, Any]:
        """As events and reports hold it."""
        return {"kind": self.kind, "label": self.label, **self.namespace.to_json()}


def find_netns(name: str) -> NetnsTarget:
    """The network namespace of this name (`ip netns`, Docker's) or path (/proc/PID/ns/net, a mounted one); TargetError for none.

    That it may be hit is another question: see `limits.group_protection`.
    """
    paths = [name] if name.startswith("/") else namespaces.named(name) if _is_name(name) else []
    if not paths:
        raise TargetError(
            f"there is no network namespace {name!r}; looked in {' and '.join(namespaces.NAMED_IN)}; "
            "give a name that is there, or a path such as /proc/PID/ns/net"
        )
    try:
        found = [NetworkNamespace.at(path) for path in paths]
    except OSError as error:
        hint = "; look as root" if isinstance(error, PermissionError) else ""
        raise TargetError(f"the network namespace {name} cannot be looked at: {error.strerror}{hint}") from error
    if len({one.key for one in found}) > 1:
        raise TargetError(f"there are two network namespaces {name!r}: {' and '.join(paths)}; give the path")
    namespace = found[0]
    if not namespace.cookie and (namespace.device, namespace.inode) not in _held:
        _held[namespace.device, namespace.inode] = os.open(namespace.path, os.O_RDONLY)
    return NetnsTarget(name, namespace)


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..")
