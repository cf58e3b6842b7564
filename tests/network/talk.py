"""A process that does with sockets what each line on its standard input asks for, and answers with a line."""

import json
import os
import socket
import struct
import sys
import time

SOCKETS: dict[str, socket.socket] = {}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def hello() -> int:
    return os.getpid()


def udp(name: str, address: str, port: int = 0) -> int:
    """A UDP socket of this name, bound; its port."""
    one = SOCKETS[name] = socket.socket(_family(address), socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    one.bind((address, port))
    one.setblocking(False)
    return one.getsockname()[1]


def send(name: str, to: list, count: int, size: int = 0) -> int:
    """Numbered datagrams; how many could not be sent."""
    failed = 0
    for number in range(count):
        try:
            SOCKETS[name].sendto((b"%d squall" % number).ljust(size, b"."), tuple(to))
        except OSError:
            failed += 1
    return failed


def numbers(name: str) -> list:
    """The numbers of the datagrams that have come."""
    found = []
    while True:
        try:
            found.append(int(SOCKETS[name].recv(65536).split(b" ")[0]))
        except BlockingIOError:
            return found


def listen(name: str, address: str, port: int = 0) -> int:
    one = SOCKETS[name] = socket.create_server((address, port), family=_family(address))
    return one.getsockname()[1]


def accept(name: str, listener: str) -> bool:
    SOCKETS[listener].settimeout(10)
    SOCKETS[name], _ = SOCKETS[listener].accept()
    return True


def connect(name: str, to: list, timeout: float = 10) -> str:
    """The name of the error, empty once connected."""
    one = SOCKETS[name] = socket.socket(_family(to[0]), socket.SOCK_STREAM)
    one.settimeout(timeout)
    try:
        one.connect(tuple(to))
    except OSError as error:
        return type(error).__name__
    return ""


def write(name: str, count: int) -> bool:
    SOCKETS[name].sendall(b"." * count)
    return True


def read(name: str, count: int, timeout: float = 20) -> int:
    """Read so many bytes, or what comes in time."""
    one, got = SOCKETS[name], 0
    one.settimeout(timeout)
    try:
        while got < count:
            block = one.recv(min(65536, count - got))
            if not block:
                break
            got += len(block)
    except TimeoutError:
        pass
    return got


def sent_again(name: str) -> int:
    """How many segments of a connection were retransmitted (tcpi_total_retrans)."""
    info = SOCKETS[name].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("<I", info, 100)[0]


def ping(to: str, count: int, timeout: float = 0.3) -> int:
    """ICMP echo requests by a raw socket; how many were answered."""
    six = ":" in to
    one = socket.socket(_family(to), socket.SOCK_RAW, 58 if six else 1)
    one.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    one.settimeout(timeout)
    identifier, answered = os.getpid() & 0xFFFF, set()
    for number in range(count):
        body = struct.pack(">BBHHH", 128 if six else 8, 0, 0, identifier, number)
        if not six:
            total = sum(struct.unpack(">4H", body))
            body = body[:2] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
        one.sendto(body, (to, 0))
    try:
        while len(answered) < count:
            packet = one.recv(2048)
            packet = packet if six else packet[20:]
            kind, _, _, who, number = struct.unpack_from(">BBHHH", packet)
            if who == identifier and kind == (129 if six else 0):
                answered.add(number)
    except TimeoutError:
        pass
    one.close()
    return len(answered)


def child_sends(to: list, wait: float, count: int) -> bool:
    """A child that lives for a while, then makes a socket and sends from it; true once it has."""
    child = os.fork()
    if child == 0:
        time.sleep(wait)
        with socket.socket(_family(to[0]), socket.SOCK_DGRAM) as one:
            for number in range(count):
                one.sendto(b"%d squall" % number, tuple(to))
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def close(name: str) -> bool:
    SOCKETS.pop(name).close()
    return True


def serve() -> None:
    """Answer until the end of the input."""
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("do")
        try:
            answer = {"ok": globals()[what](**asked)}
        except Exception as error:  # noqa: BLE001 - the test is told
            answer = {"error": f"{what}: {type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
