"""Looks up each name that comes on standard input, by the C library, and prints what it found in one line."""

import socket
import sys

WORDS = {socket.EAI_NONAME: "no such name", socket.EAI_NODATA: "no such name", socket.EAI_AGAIN: "failed"}

print("ready", flush=True)
for line in sys.stdin:
    try:
        found = socket.getaddrinfo(line.strip(), None, type=socket.SOCK_STREAM)
        print(*sorted({str(one[4][0]) for one in found}), flush=True)
    except socket.gaierror as error:
        print(WORDS.get(error.args[0], "failed"), flush=True)
