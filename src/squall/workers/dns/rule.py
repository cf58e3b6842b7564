"""Which queries are hit, and what they get."""

from __future__ import annotations

import fnmatch
import random
import re
import socket
import struct
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.workers.dns import message

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Judge", "Rule", "rule_of"]

_RANDOM4, _RANDOM6 = 0xC612_0000, 0x2001_0DB8 << 96
"""198.18.0.0/15 and 2001:db8::/32 belong to nobody (RFC 2544, RFC 3849): who connects there harms no stranger."""


class Rule(NamedTuple):
    """Which queries are hit and what they get."""

    kind: str
    """`nxdomain`, `servfail`, `refused`, `timeout`, `random` or `fixed`."""
    names: tuple[str, ...]
    share: float
    ttl_s: int = 0
    addresses: tuple[str, ...] = ()


def rule_of(config: Mapping[str, Any]) -> Rule:
    """The rule in a worker's configuration."""
    given = dict(config["rule"])
    return Rule(**{**given, "names": tuple(given["names"]), "addresses": tuple(given.get("addresses", ()))})


class Judge:
    """Holds each query against the rule; draws from the seed in the order the queries come."""

    def __init__(self, rule: Rule, seed: int) -> None:
        self._draws = random.Random(seed)  # noqa: S311 - replayed from a seed, not a secret
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self._now: tuple[Rule, re.Pattern[str]]
        self.follow(rule)

    def follow(self, rule: Rule) -> None:
        """Judge by this rule from now on; called from any thread."""
        names = "|".join(fnmatch.translate(name.lower().rstrip(".")) for name in rule.names)
        self._now = rule, re.compile(names)  # one assignment: a query sees the old rule or the new one

    def count(self, what: str) -> None:
        """One more of these; called from any thread."""
        with self._lock:
            self.counts[what] += 1

    def verdict(self, data: bytes) -> bytes | None:
        """The answer to this message; b"" for none at all, None where it is to be passed on."""
        query = message.read_query(data)
        answer = self._answer(query) if query is not None else None
        self.count("missed" if answer is None else self._now[0].kind)
        return answer

    def _answer(self, query: message.Query) -> bytes | None:
        (rule, names), kinds = self._now, (message.A, message.AAAA)
        if not names.match(query.name) or (rule.kind in ("random", "fixed") and query.type not in kinds):
            return None
        if rule.share < 1 and self._draws.random() >= rule.share:
            return None
        if rule.kind == "timeout":
            return b""
        if rule.kind == "fixed":
            return message.addresses(query, rule.addresses, rule.ttl_s)
        if rule.kind == "random":
            return message.addresses(query, [self._anywhere(query.type)], rule.ttl_s)
        return message.error(query, message.RCODES[rule.kind])

    def _anywhere(self, type_: int) -> str:
        if type_ == message.A:
            return socket.inet_ntoa(struct.pack(">I", _RANDOM4 + self._draws.randrange(1, (1 << 17) - 1)))
        number = _RANDOM6 + self._draws.randrange(1, 1 << 96)
        return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big"))
