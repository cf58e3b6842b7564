"""A small real name server for tests: UDP and TCP, it writes down what it is asked, and by whom."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NameServer", "name_server"]

A, TXT, AAAA, OPT = 1, 16, 28, 41
PLAIN_UDP_MOST = 512


@dataclass
class Asked:
    """One query as it came."""

    message: bytes
    transport: str
    name: str
    type: int


@dataclass
class NameServer:
    """Its addresses, its records by (name, type) as record data, and what it was asked. An unknown name does not exist."""

    hosts: tuple[str, ...]
    records: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    late_s: float = 0.0
    """It thinks so long about each datagram."""

    def add(self, name: str, *addresses: str) -> None:
        """Let this name have these addresses."""
        for text in addresses:
            one = ip_address(text)
            self.records.setdefault((name, A if one.version == 4 else AAAA), []).append(one.packed)

    def names_asked(self) -> list[str]:
        """The names, in order."""
        return [one.name for one in self.asked]

    def answer(self, message: bytes, transport: str) -> bytes:
        """What it says to a query: records, TC where they do not fit, or NXDOMAIN."""
        number, flags, _, _, _, more = struct.unpack_from(">HHHHHH", message)
        at, labels = 12, []
        while message[at]:
            labels.append(message[at + 1 : at + 1 + message[at]].decode())
            at += 1 + message[at]
        name, (type_,) = ".".join(labels).lower(), struct.unpack_from(">H", message, at + 1)
        end, most = at + 5, PLAIN_UDP_MOST
        if more and message[end : end + 3] == b"\0\0" + bytes([OPT]):
            most = struct.unpack_from(">H", message, end + 3)[0]
        self.asked.append(Asked(message, transport, name, type_))
        there = self.records.get((name, type_), [])
        known = any(one == name for one, _ in self.records)
        body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", type_, 1, 60, len(data)) + data for data in there)
        count, rcode, cut = len(there), 0 if known else 3, 0
        if transport == "udp" and end + len(body) > most:
            body, count, cut = b"", 0, 0x0200
        header = struct.pack(">HHHHHH", number, 0x8480 | (flags & 0x0110) | cut | rcode, 1, count, 0, 0)
        reply = header + message[12:end] + body
        self.answered.append(reply)
        return reply


@contextmanager
def name_server(*hosts: str, port: int = 53) -> Iterator[NameServer]:
    """A server on these addresses of this thread's network namespace."""
    server, ends = NameServer(hosts), threading.Event()
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for kind, work in ((socket.SOCK_DGRAM, _datagrams), (socket.SOCK_STREAM, _connections)):
            one = socket.socket(family, kind)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
            one.settimeout(0.05)
            if kind == socket.SOCK_STREAM:
                one.listen()
            sockets.append(one)
            threads.append(threading.Thread(target=work, args=(server, one, ends)))
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        ends.set()
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()


def _datagrams(server: NameServer, door: socket.socket, ends: threading.Event) -> None:
    while not ends.is_set():
        try:
            message, client = door.recvfrom(65535)
        except TimeoutError:
            continue
        reply = server.answer(message, "udp")
        ends.wait(server.late_s)
        door.sendto(reply, client)


def _connections(server: NameServer, door: socket.socket, ends: threading.Event) -> None:
    while not ends.is_set():
        try:
            connection, _ = door.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(2)
            try:
                while (head := _exactly(connection, 2)) and (
                    message := _exactly(connection, struct.unpack(">H", head)[0])
                ):
                    reply = server.answer(message, "tcp")
                    connection.sendall(struct.pack(">H", len(reply)) + reply)
            except OSError:
                continue


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            return b""
        data += chunk
    return data
