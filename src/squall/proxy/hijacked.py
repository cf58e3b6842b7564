"""A data plane that connections are led to: `python -m squall.proxy.hijacked CONFIG`, CONFIG being one JSON object.

    {"control": "/run/.../hijack.sock", "seed": 7, "options": {...}, "direction": "outbound", "ports": [8083],
     "peers": ["10.0.0.0/8"], "doors": [["127.0.0.1", 8083, true]], "netns": {"path": ..., ...}, "cgroup": "/sys/fs/...",
     "member": [4711, 123456, "squall-own-..."], "established": {"processes": [[4711, 123456]], "folders": []}}

As `owned`, but that it enters a network namespace first, holds the programs of bpf/hijack.bpf.c, renews their lease,
and takes new filters as a line on standard input. When it ends, however it ends, connections go their own way at once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from squall.errors import SquallError
from squall.kernel import cgroups, proc
from squall.kernel.namespaces import NetworkNamespace, enter
from squall.proxy.established import Holders, end_established
from squall.proxy.hijack import Hijack, Wanted
from squall.proxy.owned import Server
from squall.proxy.refusals import Invalid
from squall.proxy.transparent import InboundProxy, OutboundProxy
from squall.workers.holding import RENEW_S, Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.proxy.transparent import TransparentProxy

__all__ = ["main"]

_NAME: Final = "route"
_LINE_MOST: Final = 1 << 20


class HijackServer(Server):
    """One such data plane, from its configuration to its end."""

    def __init__(self, config: Mapping[str, Any], counts: Counts) -> None:
        self._counts, self._ended, self._partial = counts, 0, b""
        super().__init__(config)

    def _open_routes(self, config: Mapping[str, Any]) -> None:
        wanted = Wanted.read(config)
        self._hijack = Hijack(wanted)
        kind = OutboundProxy if wanted.direction == "outbound" else InboundProxy
        proxy: TransparentProxy = kind(self._plane, _NAME, self._hijack)
        proxy.enable()
        self._plane.proxies[_NAME] = proxy
        self._hijack.begin(proxy.listeners, _not_ours(_cgroup(config)) if wanted.direction == "outbound" else "")
        established = config.get("established")
        if established is not None:  # only now: who comes back is to be led here
            self._ended = end_established(wanted, Holders(established["processes"], established["folders"]))
        self._renew()

    def _renew(self) -> None:
        self._hijack.renew()
        self._publish()
        self._plane.loop.call_later(RENEW_S, self._renew)

    def _publish(self) -> None:
        counts = {**self._hijack.counts(), "ended": self._ended}
        self._counts.publish({name: count for name, count in counts.items() if count} | {"lapses": self._hijack.lapses})

    def _told(self, said: bytes) -> None:
        *lines, self._partial = (self._partial + said).split(b"\n")
        if len(self._partial) > _LINE_MOST:
            raise Invalid("the owner does not end its line")
        if lines:
            self._hijack.become(Wanted.read(json.loads(lines[-1])))

    def _let_go(self) -> None:
        self._hijack.let_go()
        self._publish()


def _cgroup(config: Mapping[str, Any]) -> str:
    """The folder of the target's cgroup: named, or the one of its own that a process is in by now."""
    named = config.get("cgroup")
    if isinstance(named, str) and named:
        return named
    pid, ticks, own = config["member"]
    folder = cgroups.folders_of(pid).get("", "")
    stat = proc.read_stat(pid)
    head, found, _ = folder.partition(f"/{own}")
    if stat is None or stat.start_ticks != ticks or not found:
        raise Invalid(f"process {pid} is not in the cgroup {own} that was made for it")
    return head + found


def _not_ours(folder: str) -> str:
    """The same folder; Invalid where this process is in it: it would be led to itself, round and round."""
    if f"{cgroups.folders_of().get('', '')}/".startswith(f"{folder}/"):
        raise Invalid(f"{folder} holds Squall itself: its own connections would be led away")
    return folder


def _read(argv: Sequence[str]) -> dict[str, Any]:
    if len(argv) != 1:
        raise Invalid("one argument is needed: the configuration as a JSON object")
    config: dict[str, Any] = json.loads(argv[0])
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one; the exit status. `argv` is what follows the module's name."""
    try:
        counts = Counts()  # first of all: its descriptor has a number that readers know
        config = _read(sys.argv[1:] if argv is None else argv)
        netns = config.get("netns")
        if netns is not None:
            fd = NetworkNamespace.from_json(netns).open()
            enter(fd)
            os.close(fd)
        server = HijackServer(config, counts)
    except (SquallError, OSError, ValueError) as error:
        sys.stdout.write(json.dumps({"error": str(error), "code": getattr(error, "code", "failed")}) + "\n")
        sys.stdout.flush()
        return 1
    server.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
