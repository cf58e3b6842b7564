"""Does what it is told with one file, and says which errors it got: the target of io.* and syscall.*."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

path = sys.argv[1]


def attempt(call: Callable[..., object], *arguments: object) -> int:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def one_round() -> tuple[int, ...]:
    began = time.perf_counter_ns()
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        return (error.errno or -1, 0, 0, 0, 0)
    results = (0, attempt(os.pwrite, fd, b"x", 0), attempt(os.fsync, fd), attempt(os.pread, fd, 1, 0))
    os.close(fd)
    return (*results, (time.perf_counter_ns() - began) // 1000)


def many(count: int) -> int:
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    failed = sum(attempt(os.fsync, fd) != 0 for _ in range(count))
    os.close(fd)
    return failed


def store(worker: int, count: int) -> None:
    fd = os.open(f"{path}.{worker}", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
    offset = 0
    for number in range(count):
        record = f"{number:08}\n".encode()
        while attempt(os.pwrite, fd, record, offset):
            pass
        offset += len(record)
    os.close(fd)


def store_all(count: int) -> str:
    threads = [threading.Thread(target=store, args=(worker, count)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "stored"


def connect(address: str) -> int:
    host, _, port = address.partition(":")
    with socket.socket() as client:
        return attempt(client.connect, (host, int(port)))


print("ready", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "round":
        print(*one_round(), flush=True)
    elif word == "many":
        print(many(int(rest[0])), flush=True)
    elif word == "store":
        print(store_all(int(rest[0])), flush=True)
    elif word == "connect":
        print(connect(rest[0]), flush=True)
