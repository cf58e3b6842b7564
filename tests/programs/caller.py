"""A client that nobody prepared, in Python: the same lines and answers as caller.go."""

import contextlib
import http.client
import json
import socket
import sys
import time
from urllib.parse import urlsplit

kept: dict[str, http.client.HTTPConnection] = {}


def named(address: tuple) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def get(url: str, found: dict) -> None:
    where = urlsplit(url)
    connection = kept.setdefault(where.netloc, http.client.HTTPConnection(where.netloc, timeout=10))
    found["reused"] = connection.sock is not None
    try:
        connection.request("GET", where.path or "/")
        found["peer"] = named(connection.sock.getpeername())
        answer = connection.getresponse()
        found["status"], found["said"] = answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        connection.close()
        raise


def dial(address: str, found: dict) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as connection:
        found["peer"] = named(connection.getpeername())
        connection.sendall(b"hi\n")
        found["said"] = connection.makefile().readline()
        if not found["said"]:
            raise EOFError("EOF")


for line in sys.stdin:
    what, _, where = line.strip().partition(" ")
    found = {"said": "", "status": 0, "peer": "", "error": "", "ms": 0.0, "reused": False}
    began = time.monotonic()
    try:
        (get if what == "get" else dial)(where, found)
    except (OSError, EOFError, http.client.HTTPException) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["ms"] = (time.monotonic() - began) * 1000
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(found), flush=True)
