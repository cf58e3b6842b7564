"""The stand-in resolver of a whole network namespace: rules of nftables redirect to it, and stop when it does not renew.

The table is a step of its own (`actions.nft_table`), for rules cannot be held by a descriptor. They work as long as
elements are in the table's set `lease`, which leave it by themselves within a second.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from squall.kernel import namespaces
from squall.kernel.conntrack import Conntrack, End, Flow
from squall.kernel.namespaces import NetworkNamespace
from squall.workers.dns.doors import Door, Doors
from squall.workers.dns.resolver import Resolver
from squall.workers.dns.rule import Judge, rule_of
from squall.workers.dns.streams import Address, Server
from squall.workers.holding import LEASE_NS
from squall.workers.lifeline import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Redirected", "rules"]

_PROTOCOLS: dict[int, int] = {socket.SOCK_DGRAM: 17, socket.SOCK_STREAM: 6}
_RENEW_S = 0.3
_LEASE_S = LEASE_NS // 1_000_000_000
_LEASE = f"udp timeout {_LEASE_S}s, tcp timeout {_LEASE_S}s"
_LAST_ANSWERS_S = 1.0


def rules(port: int, mark: int) -> str:
    """The table's content: what goes to port 53 goes to this port of the loopback, but for what carries the mark."""
    led = f"meta mark != {mark:#x} meta l4proto {{ udp, tcp }} th dport 53 meta l4proto @lease redirect to :{port}"
    return (
        f"set lease {{ type inet_proto; flags timeout; elements = {{ {_LEASE} }}; }}\n"
        f"chain output {{ type nat hook output priority -100; policy accept;\n{led}\n}}"
    )


class Redirected:
    """The resolver with one door, and the lease of the rules that lead to it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._table, self._port = str(config["table"]), int(config["port"])
        namespace = NetworkNamespace.from_json(config["netns"])
        self._nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin") or ""
        self._doors = Doors.open(namespace, self._port, int(config["mark"]))
        self._judge = Judge(rule_of(config), int(config["seed"]))
        with namespaces.entered(self._doors.fd):
            self._tracked = Conntrack()
        self._resolver = Resolver(self._judge, self._server_of)
        self._resolver.serve(self._doors)
        self._due = self._until = 0.0
        self.lapses = 0

    def renew(self) -> None:
        """Let the rules work for another second, once they are there, as long as the resolver does."""
        if not self._resolver.well:
            raise Refused("the resolver no longer answers")
        now = time.monotonic()
        if now < self._due:
            return
        script = f"flush set inet {self._table} lease; add element inet {self._table} lease {{ {_LEASE} }}\n"
        with namespaces.entered(self._doors.fd):
            done = subprocess.run(
                [self._nft, "-f", "-"], input=script, text=True, stderr=subprocess.DEVNULL, check=False
            )
        if self._until and now > self._until:  # it ended before it was renewed, or the rules are gone
            self.lapses += 1
        if done.returncode == 0:
            self._until = now + _LEASE_S
        self._due = now + (_RENEW_S if self._until else 0)

    def counts(self) -> Mapping[str, int]:
        """Queries by what became of them."""
        return {"missed": 0, "lapses": self.lapses, **self._judge.counts}

    def become(self, config: Mapping[str, Any]) -> None:
        """Judge by another rule from the next query on."""
        self._judge.follow(rule_of(config))

    def close(self) -> None:
        """Give the answers that are on their way the time to arrive; the rules are another step's to remove."""
        self._resolver.finish(_LAST_ANSWERS_S)
        self._doors.close()

    def _server_of(self, door: Door, kind: int, client: Address) -> Server | None:
        """Whom it was asking before it was redirected, from the kernel's tracking."""
        here = End("127.0.0.1" if door.family == socket.AF_INET else "::1", door.port)
        asked = Flow(door.family, _PROTOCOLS[kind], here, End(client[0], client[1]))
        try:
            flow = self._tracked.original(asked)
        except OSError:
            return None
        return Server(*flow.destination) if flow is not None and flow.destination != here else None
