"""The connections that were there before a hijack, ended so that their clients come back and are led to the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.kernel import cgroups, proc
from squall.kernel.sock_diag import ESTABLISHED, LISTEN, End, TcpSocket, destroy, packed, sockets

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from squall.proxy.hijack import Wanted

__all__ = ["Holders", "before", "end_established"]

_SYN_SENT = 2
_ANY4, _ANY6 = b"\0" * 10 + b"\xff\xff" + b"\0" * 4, b"\0" * 16


class Holders:
    """Whose outbound connections are meant: processes by pid and start time, and all in these cgroups."""

    def __init__(self, processes: Iterable[Sequence[int]] = (), folders: Iterable[str] = ()) -> None:
        self._processes, self._folders = [(pid, ticks) for pid, ticks in processes], list(folders)

    def inodes(self) -> set[int]:
        """The inodes of their sockets."""
        pids = set(cgroups.processes_below(self._folders))
        for pid, ticks in self._processes:
            stat = proc.read_stat(pid)
            if stat is not None and stat.start_ticks == ticks:
                pids.add(pid)
        return {inode for pid in pids for inode in proc.socket_inodes(pid)}


def end_established(wanted: Wanted, holders: Holders) -> int:
    """End them, in this network namespace; how many there were. OSError where the kernel cannot."""
    return destroy(before(wanted, holders))


def before(wanted: Wanted, holders: Holders) -> list[TcpSocket]:
    """The target's connections that a hijack comes too late for."""
    if wanted.direction == "inbound":
        return [one for one in sockets(ESTABLISHED) if _is_door(wanted, one.local) and wanted.takes(one.remote)]
    accepting = {one.local for one in sockets(LISTEN)}
    inodes = holders.inodes()
    return [
        one
        for one in sockets(ESTABLISHED, _SYN_SENT)
        if one.inode in inodes and not _accepted(one.local, accepting) and wanted.takes(one.remote)
    ]


def _is_door(wanted: Wanted, local: End) -> bool:
    doors = {End(packed(door.address), door.port): door.own for door in wanted.doors}
    return next((doors[place] for place in _listening_at(local) if place in doors), False)


def _accepted(local: End, accepting: set[End]) -> bool:
    return any(place in accepting for place in _listening_at(local)) or End(_ANY6, local.port) in accepting


def _listening_at(local: End) -> tuple[End, End]:
    """Where somebody listens who has accepted a connection at this address: there, or at all addresses."""
    return local, End(_ANY4 if local.address.startswith(_ANY4[:12]) else _ANY6, local.port)
