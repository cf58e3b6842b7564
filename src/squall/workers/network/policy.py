"""A policy (address, port) -> delay, as the kernel's map holds it and as a delay line reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from squall.workers.network.frames import network_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Policy"]

_MAPPED = bytes(10) + b"\xff\xff"
_ANY_PORT = bytes(2)


@dataclass(frozen=True, slots=True)
class Policy:
    """Delays in ns by address (16 bytes, IPv4 as ::ffff:a.b.c.d) and port (2 bytes); zero stands for any, of its family."""

    entries: dict[tuple[bytes, bytes], int]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int, int]]) -> Self:
        """From (address, port, ns)."""
        return cls({(_address(address), port.to_bytes(2)): ns for address, port, ns in rows})

    def packed(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the kernel's map (`struct end`, nanoseconds)."""
        for (address, port), ns in self.entries.items():
            yield address + port + bytes(2), ns.to_bytes(8, "little")

    def wanted_ns(self, frame: bytes) -> int:
        """The delay of a frame that the kernel's program has chosen, by the most exact entry (`wanted` in tcp_policy.bpf.c)."""
        version, at = network_header(frame)
        if version == 4:  # noqa: PLR2004 - the version of IP
            ports = at + (frame[at] & 15) * 4
            local, remote, anywhere = (
                _MAPPED + frame[at + 12 : at + 16],
                _MAPPED + frame[at + 16 : at + 20],
                _MAPPED + bytes(4),
            )
        else:
            ports = at + 40
            local, remote, anywhere = frame[at + 8 : at + 24], frame[at + 24 : at + 40], bytes(16)
        here, there = frame[ports : ports + 2], frame[ports + 2 : ports + 4]
        for key in (
            (remote, there), (local, here), (remote, _ANY_PORT), (local, _ANY_PORT), (anywhere, there), (anywhere, here),
            (anywhere, _ANY_PORT),
        ):  # fmt: skip
            ns = self.entries.get(key)
            if ns is not None:
                return ns
        return 0


def _address(text: str) -> bytes:
    address = ip_address(text)
    return (_MAPPED if address.version == 4 else b"") + address.packed  # noqa: PLR2004
