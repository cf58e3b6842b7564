"""Makes socket, bind and connect fail for what runs in a cgroup, by programs on its hooks."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import SquallError
from squall.kernel.bpf import CgroupHook, Lifecycle
from squall.kernel.own import be_named
from squall.workers.holding import Lease, hold, seed
from squall.workers.lifeline import Refused, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.workers.lifeline import Lifeline

__all__ = ["CALLS", "Config", "main"]

CALLS = ("socket", "bind", "connect")
"""In the order of their bits in socket_errno.bpf.c."""
_HOOKS = {
    "socket": (("makes", "sock_create"),),
    "bind": (("binds4", "bind4"), ("binds6", "bind6")),
    "connect": (("connects4", "connect4"), ("connects6", "connect6")),
}
_ZERO = struct.pack("<I", 0)
_CALLS, _HITS = 0, 1


class Config(NamedTuple):
    """In this v2 cgroup fail these calls with `error` (an errno), `share` of 2^32 of them, `times` at most (0: no end)."""

    cgroup: str
    calls: tuple[str, ...]
    error: int
    share: int
    times: int
    seed: int


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    be_named("squall-sockets")
    config = Config(**data)
    try:
        held = _Failing(config)
    except (OSError, SquallError) as error:
        raise Refused(str(error)) from error
    hold(line, held)


class _Failing:
    """The programs on one cgroup."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._programs = Lifecycle("socket_errno")
        try:
            self._programs.load()
            seed(self._programs.collection, config.seed)
            self._write(config)
            self._lease = Lease(self._programs.collection)
        except BaseException:
            self._programs.close()
            raise

    def _write(self, config: Config) -> None:
        """The rule first, then the hooks that it needs and the last one did not; those it needs no more last."""
        bits = sum(1 << CALLS.index(call) for call in config.calls)
        self._programs.adjust("rules", _ZERO, struct.pack("<IiIIQ", bits, -config.error, config.share, 0, config.times))
        self._programs.adjust("spent", _ZERO, bytes(8))
        wanted = [CgroupHook(name, config.cgroup, kind) for call in config.calls for name, kind in _HOOKS[call]]
        self._programs.attach(wanted)
        self._programs.detach(set(self._programs.hooks) - set(wanted))

    def renew(self) -> None:
        self._lease.renew()

    def counts(self) -> Mapping[str, int]:
        counters = self._programs.collection.map("counters")
        return {"calls": counters.total(_CALLS), "hits": counters.total(_HITS), "lapses": self._lease.lapses}

    def become(self, config: Mapping[str, Any]) -> None:
        self._config = Config(**config)
        self._write(self._config)

    def close(self) -> None:
        self._programs.close()
