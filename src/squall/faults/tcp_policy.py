"""What tcp.delay goes by: a policy of addresses and ports, in the spellings that are allowed."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from squall.faults.frozen import FrozenMapping
from squall.units import Duration, Within

__all__ = ["Policy", "policy_end"]

_PORT_MOST = 65535
_ENTRIES_MOST = 1024


def policy_end(text: str) -> tuple[str, int]:
    """Address and port of an entry: "10.0.0.1:8080" or "[::1]:80"; 0.0.0.0, :: and port 0 stand for any. ValueError otherwise."""
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    try:
        found = ip_address(address[1:-1] if bracketed else address)
    except ValueError:
        found = None
    right = found is not None and bracketed == (found.version == 6)  # noqa: PLR2004 - the version of IP
    if found is None or not right or not colon or not port.isdecimal() or int(port) > _PORT_MOST:
        raise ValueError(f"{text!r} is not ADDRESS:PORT such as 10.0.0.1:8080, [fd00::1]:80 or 0.0.0.0:0 (any)")
    return str(found), int(port)


def _end(text: str) -> str:
    address, port = policy_end(text)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _from_text(value: object) -> object:
    """A policy in one line, as `squall adjust` takes it: "10.0.0.1:8080=20ms,0.0.0.0:0=0s"."""
    if not isinstance(value, str):
        return value
    entries: dict[str, str] = {}
    for part in value.split(","):
        end, equals, delay = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not ADDRESS:PORT=DELAY")
        entries[end.strip()] = delay.strip()
    return entries


PolicyEnd = Annotated[str, AfterValidator(_end)]
Policy = Annotated[
    FrozenMapping[PolicyEnd, Annotated[Duration, Within("0s", "10m")]],
    BeforeValidator(_from_text),
    Field(min_length=1, max_length=_ENTRIES_MOST),
]
