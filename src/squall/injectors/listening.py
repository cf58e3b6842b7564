"""Where a target listens, and which of that is its own: what inbound connections are told apart by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from squall.errors import CannotInject
from squall.faults.network import port_range
from squall.kernel import proc
from squall.kernel.namespaces import NetworkNamespace, inside, network_of, processes_in
from squall.kernel.sock_diag import LISTEN, End, TcpSocket, packed, sockets
from squall.proxy.hijack import Door
from squall.targets import NetnsTarget
from squall.targets.limits import OWN_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from squall.targets import CgroupTarget, ProcessTarget

__all__ = ["doors", "in_namespace", "namespace_of"]

T = TypeVar("T")
_ANY4, _ANY6 = packed("0.0.0.0"), packed("::")  # noqa: S104 - compared with, not bound to
_NAMED_MOST = 8


def namespace_of(target: ProcessTarget | CgroupTarget | NetnsTarget, pids: Sequence[int]) -> NetworkNamespace:
    """The one network namespace that a target is in; CannotInject where it is in none or in several."""
    if isinstance(target, NetnsTarget):
        return target.namespace
    seen = {where: pid for pid in pids if (where := network_of(pid)) is not None}
    if len(seen) > 1:
        raise CannotInject(f"the processes of {target.label} are in {len(seen)} network namespaces: name one of them")
    try:
        return NetworkNamespace.at(f"/proc/{next(iter(seen.values()))}/ns/net")
    except (StopIteration, OSError) as error:
        raise CannotInject(
            f"the network namespace of {target.label} cannot be seen: nothing runs in it, or run as root"
        ) from error


def in_namespace(namespace: NetworkNamespace, call: Callable[[], T]) -> T:
    """What `call` returns in this namespace."""
    if namespace.own:
        return call()
    fd = namespace.open()
    try:
        return inside(fd, call)
    finally:
        os.close(fd)


def doors(
    target: ProcessTarget | CgroupTarget | NetnsTarget,
    pids: Sequence[int],
    namespace: NetworkNamespace,
    ports: Iterable[int | str],
) -> tuple[Door, ...]:
    """Where the target listens, at these ports (all: none given), and others' more precise addresses on the same ports.

    CannotInject where it listens on none of them, or shares one with others (SO_REUSEPORT).
    """
    listening = in_namespace(namespace, lambda: sockets(LISTEN))
    if isinstance(target, NetnsTarget):
        spared = {inode for pid in processes_in(namespace) if _is_squalls(pid) for inode in proc.socket_inodes(pid)}
        own, others = [one for one in listening if one.inode not in spared], []
    else:
        inodes = {inode for pid in pids for inode in proc.socket_inodes(pid)}
        own = [one for one in listening if one.inode in inodes]
        others = [one for one in listening if one.inode not in inodes]
    spans = [port_range(port) for port in ports]
    meant = [one for one in own if not spans or any(low <= one.local.port <= high for low, high in spans)]
    if not meant:
        there = sorted({one.local.port for one in own})[:_NAMED_MOST]
        said = f"not on these ports, but on {', '.join(map(str, there))}" if there else "on no TCP port"
        raise CannotInject(
            f"{target.label} listens {said}: for the connections that it makes say `connections: outbound`"
        )
    found = {place: True for one in meant for place in _places(one)}
    for one in others:
        for place in _places(one):
            if place in found:
                raise CannotInject(
                    f"port {one.local.port} is shared with others that listen there too (SO_REUSEPORT): name them together"
                )
    covered = {port for address, port in found if address in (_ANY4, _ANY6)}
    elsewhere = {
        one.local: False for one in others if one.local.port in covered and one.local.address not in (_ANY4, _ANY6)
    }
    both = {**found, **elsewhere}
    return tuple(Door(end.host, end.port, both[end]) for end in sorted(both))


def _places(one: TcpSocket) -> list[End]:
    """The addresses at which a listening socket takes connections: `::` takes IPv4 too unless it says otherwise."""
    address, port = one.local
    if address == _ANY6 and not one.v6only:
        return [one.local, End(_ANY4, port)]
    return [one.local]


def _is_squalls(pid: int) -> bool:
    return proc.environment_value(pid, OWN_MARK) is not None
