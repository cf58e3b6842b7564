"""What a delay line reads in the frames it holds. A frame begins with its `struct virtio_net_hdr`."""

from __future__ import annotations

from squall.workers.network.tap import ETHERNET, HEADER

__all__ = ["flow", "ip_length", "network_header"]

_IP = HEADER + ETHERNET
_IPV4, _IPV6, _VLANS = b"\x08\x00", b"\x86\xdd", (b"\x81\x00", b"\x88\xa8")
_VLANS_MOST = 2


def ip_length(frame: bytes) -> int:
    """Its bytes from the network layer on; one that stands for several segments has headers for each of them."""
    length = len(frame) - _IP
    if frame[1]:  # gso_type
        headers, segment = int.from_bytes(frame[2:4], "little") - ETHERNET, int.from_bytes(frame[4:6], "little")
        if segment and headers > 0:
            length += (length - headers - 1) // segment * headers
    return length


def network_header(frame: bytes) -> tuple[int, int]:
    """(4 or 6, where the header begins) of an IP packet; (0, 0) of anything else."""
    at = _IP
    for _ in range(_VLANS_MOST + 1):
        kind = frame[at - 2 : at]
        if kind == _IPV4 and len(frame) >= at + 20:
            return 4, at
        if kind == _IPV6 and len(frame) >= at + 40:
            return 6, at
        if kind not in _VLANS:
            break
        at += 4
    return 0, 0


def flow(frame: bytes) -> bytes:
    """What packets of one flow have in common: protocol, addresses, and ports where the protocol has them first."""
    version, at = network_header(frame)
    if version == 4:  # noqa: PLR2004 - the version of IP
        ports = at + (frame[at] & 15) * 4
        fragment = int.from_bytes(frame[at + 6 : at + 8]) & 0x3FFF
        return frame[at + 9 : at + 10] + frame[at + 12 : at + 20] + (b"" if fragment else frame[ports : ports + 4])
    if version == 6:  # noqa: PLR2004
        return frame[at + 6 : at + 7] + frame[at + 8 : at + 44]
    return frame[HEADER : HEADER + ETHERNET]
