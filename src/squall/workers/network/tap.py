"""A TAP device of one's own: what is sent out of it is read here, what is written here comes in through it.

Frames pass whole, up to 64 KiB and with checksums still to be filled in, as the kernel's own interfaces hand them to
each other: a header of `struct virtio_net_hdr` goes before each. The device ends with its descriptor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

__all__ = ["ETHERNET", "FRAME_MOST", "HEADER", "Tap"]

HEADER = 10
"""Bytes of `struct virtio_net_hdr` (linux/virtio_net.h) before each frame."""
ETHERNET = 14
FRAME_MOST = HEADER + ETHERNET + 4 + 65_536
_FIRST_FD = 256
"""The kernel closes what a killed process had in the order of the numbers: the programs that send packets here must go first."""
_QUEUE = 8192
"""Frames that may wait in the device until they are read; what comes then is dropped and counted by the device."""

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6 = 1, 2, 4, 8, 0x20, 0x40
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU, _SIOCGIFHWADDR, _SIOCSIFTXQLEN = 0x8913, 0x8914, 0x8922, 0x8927, 0x8943
_IFF_UP, _IFF_NOARP, _IFF_MULTICAST = 0x1, 0x80, 0x1000
_MTU_MOST = 65_521
"""The kernel's own limit for such a device (65535 less an Ethernet header)."""


class Tap:
    """A device "squallN" in the calling thread's network namespace, up, without addresses, silent.

    OSError where there may be none: no root, no /dev/net/tun, no `tun` module.
    """

    def __init__(self, mtu: int, *, whole: bool = True) -> None:
        opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
        os.close(opened)
        try:
            request = struct.pack("16sH22x", b"squall%d", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
            self.name = fcntl.ioctl(self.fd, _TUNSETIFF, request)[:16].rstrip(b"\0").decode()
            self.keep_whole(whole=whole)
            self.ifindex = socket.if_nametoindex(self.name)
            self.address = self._set_up(mtu)
        except BaseException:
            os.close(self.fd)
            raise

    def keep_whole(self, *, whole: bool) -> None:
        """Whether the kernel hands over what it sends in one piece, or cuts it to the MTU first."""
        cut = _TSO4 | _TSO6 | _TSO_ECN if whole else 0
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _CSUM | cut | (_USO4 | _USO6 if whole else 0))
        except OSError:  # Linux before 6.2 has no UDP in one piece
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _CSUM | cut)

    def _set_up(self, mtu: int) -> bytes:
        """Up, and as silent as can be; its hardware address."""
        name = self.name.encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name, min(mtu, _MTU_MOST)))
            fcntl.ioctl(control, _SIOCSIFTXQLEN, struct.pack("16si20x", name, _QUEUE))
            with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6", "w") as file:
                file.write(
                    "1"
                )  # no IPv6 in this kernel, or /proc/sys is not for us: what the device says is dropped anyway
            got = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
            flags = (struct.unpack_from("16xH", got)[0] | _IFF_UP | _IFF_NOARP) & ~_IFF_MULTICAST
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags))
            hardware = fcntl.ioctl(control, _SIOCGIFHWADDR, struct.pack("16s24x", name))
        return bytes(hardware[18:24])

    def works(self) -> bool:
        """Whether it is there and up: somebody may have taken it away, or down."""
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                got = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", self.name.encode(), 0))
        except OSError:
            return False
        return bool(struct.unpack_from("16xH", got)[0] & _IFF_UP)

    def dropped(self) -> int:
        """How many frames the device lost because its queue was full."""
        try:
            with open("/proc/thread-self/net/dev") as file:
                for line in file:
                    name, _, numbers = line.partition(":")
                    if name.strip() == self.name:
                        return int(numbers.split()[11])
        except (OSError, ValueError):
            pass
        return 0

    def close(self) -> None:
        """The device goes at once."""
        os.close(self.fd)
