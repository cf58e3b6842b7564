"""Sends each message that comes on standard input ("HOW SERVER HEX") and prints who answered what ("ADDRESS PORT HEX").

HOW is `connected`, `unconnected` (UDP) or `tcp`; several messages in one line ("HEX,HEX") are sent before any answer is
awaited, and their answers are printed in the order they come.
"""

import socket
import struct
import sys


def exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += stream.recv(count - len(data))
    return data


def ask(how: str, server: str, messages: list[bytes]) -> list[tuple[tuple[str, int], bytes]]:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if how == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as one:
        one.settimeout(5)
        if how != "unconnected":
            one.connect((server, 53))
        for message in messages:
            if how == "tcp":
                one.sendall(struct.pack(">H", len(message)) + message)
            elif how == "connected":
                one.send(message)
            else:
                one.sendto(message, (server, 53))
        if how == "tcp":
            return [(one.getpeername()[:2], exactly(one, *struct.unpack(">H", exactly(one, 2)))) for _ in messages]
        found = []
        for _ in messages:
            data, source = one.recvfrom(65535)
            if how == "connected":
                assert one.getpeername()[:2] == source[:2]
            found.append((source[:2], data))
        return found


print("ready", flush=True)
for line in sys.stdin:
    how, server, messages = line.split()
    try:
        answers = ask(how, server, [bytes.fromhex(one) for one in messages.split(",")])
        print(*(f"{host} {port} {data.hex()}" for (host, port), data in answers), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
