"""The least that can send requests on time: one epoll loop, no time-outs, no parser, no samples. What Squall's load is held against.

Arguments: port, requests a second, seconds. Prints one line of JSON: lateness of each send, latency of each answer (ns), CPU.
It counts any 43 bytes as an answer, since `service.py` always says the same; connections are opened as needed and kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import sys
import time

ANSWER_BYTES = len(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PR_SET_TIMERSLACK = 29


def run(port: int, rate: float, seconds: float) -> dict[str, object]:
    epoll = select.epoll()
    idle: list[socket.socket] = []
    busy: dict[int, list[object]] = {}
    late_ns: list[int] = []
    took_ns: list[int] = []
    period_ns, count = 1e9 / rate, int(rate * seconds)
    clock = time.monotonic_ns
    cpu_ns, begin_ns, number = time.process_time_ns(), clock() + 1_000_000, 0
    while number < count or busy:
        due_ns = begin_ns + round(number * period_ns)
        now_ns = clock()
        if number < count and due_ns <= now_ns:
            if idle:
                sock = idle.pop()
            else:
                sock = socket.create_connection(("127.0.0.1", port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                epoll.register(sock.fileno(), select.EPOLLIN)
            sock.send(REQUEST)
            late_ns.append(now_ns - due_ns)
            busy[sock.fileno()] = [sock, due_ns, ANSWER_BYTES]
            number += 1
            continue
        left_ns = due_ns - now_ns if number < count else 50_000_000
        if left_ns > 0:
            select.select([epoll], [], [], left_ns / 1e9)
        for fd, _ in epoll.poll(0):
            entry = busy[fd]
            entry[2] -= len(entry[0].recv(65_536))  # type: ignore[attr-defined,operator]  # a list, for speed
            if entry[2] == 0:
                took_ns.append(clock() - entry[1])  # type: ignore[operator]  # as above
                idle.append(busy.pop(fd)[0])  # type: ignore[arg-type]  # as above
    return {"late_ns": late_ns, "took_ns": took_ns, "cpu": (time.process_time_ns() - cpu_ns) / (clock() - begin_ns)}


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # as Squall's load does
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))
