"""Faults on the names that a service looks up."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from squall.faults.base import Fault
from squall.faults.frozen import Rows
from squall.units import Duration, Ratio, Within

__all__ = ["DnsFault", "Error", "Fixed", "Random"]

_HUNDRED = Ratio.parse("100%")
_PATTERN = r"^[A-Za-z0-9_*-]{1,63}(\.[A-Za-z0-9_*-]{1,63})*\.?$"


def _pattern(text: str) -> str:
    if not re.fullmatch(_PATTERN, text) or len(text) > 253:  # noqa: PLR2004 - RFC 1035's limit as it is written
        raise ValueError(
            f"{text[:63]!r} is no pattern of names: labels of letters, digits, `-`, `_` and `*` with dots between "
            "them; write an international name as it is sent (xn--...)"
        )
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text[:63]!r} is neither an IPv4 nor an IPv6 address") from None


def _between(least: int, most: int) -> AfterValidator:
    """How many there may be; said once, and not beside what is wrong with one of them."""

    def check(some: tuple[str, ...]) -> tuple[str, ...]:
        if not least <= len(some) <= most:
            raise ValueError(f"there are {len(some)}: {least} to {most} are allowed")
        return some

    return AfterValidator(check)


NamePattern = Annotated[str, Field(max_length=254), AfterValidator(_pattern)]
Address = Annotated[str, Field(max_length=45), AfterValidator(_address)]


class DnsFault(Fault):
    """Which queries are hit."""

    names: Annotated[Rows[NamePattern], _between(1, 64), Field(json_schema_extra={"minItems": 1, "maxItems": 64})]
    """The names, whole, as they are asked for; `*` stands for any characters, dots too (`*.example.com`, `*`).

    A name that is looked up in a search domain is asked for with that domain: `db` as `db.default.svc.cluster.local`.
    """
    percent: Ratio = _HUNDRED
    """The share of matching queries that are hit; drawn for each from the experiment's seed."""


class Error(DnsFault, type="dns.error", targets=("process", "cgroup", "netns")):
    """Names cannot be looked up: the target is told that there is no such name, that the server failed or refused, or nothing."""

    error: Literal["nxdomain", "servfail", "refused", "timeout"] = "nxdomain"
    """What it is told; `timeout`: nothing, until it gives up."""


class _Answer(DnsFault):
    ttl: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """How long who asked may keep the answer, in whole seconds; 0s so that nothing stays when the fault is over."""


class Random(_Answer, type="dns.random", targets=("process", "cgroup", "netns")):
    """Names lead nowhere: each answer is a random address of a range that belongs to nobody (198.18.0.0/15, 2001:db8::/32).

    Queries for other records than A and AAAA are passed on.
    """


class Fixed(_Answer, type="dns.fixed", targets=("process", "cgroup", "netns")):
    """Names lead elsewhere: each answer holds these addresses; where none is of the version asked for, it holds none.

    Queries for other records than A and AAAA are passed on.
    """

    addresses: Annotated[Rows[Address], _between(1, 8), Field(json_schema_extra={"minItems": 1, "maxItems": 8})]
    """IPv4 and IPv6 addresses."""
