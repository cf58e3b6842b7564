"""What the crash matrix faults: a process that ticks every millisecond, opens a file each time, and serves HTTP.

`target.py PULSE`: PULSE is a file of three 8-byte counters: ticks, files opened, and the port it listens on. SIGUSR1 is
harmless to it.
"""

from __future__ import annotations

import mmap
import signal
import socket
import struct
import sys
import threading
import time


def answer(listener: socket.socket) -> None:
    while True:
        try:
            link, _ = listener.accept()
            with link:
                link.settimeout(1)
                if link.recv(65536):
                    link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        except OSError:  # no descriptor left, that is the fault; or a client that is gone
            time.sleep(0.005)


def open_one() -> None:
    with open("/dev/null"):  # noqa: PTH123 - a small program
        pass


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=answer, args=(listener,), daemon=True).start()
    with open(sys.argv[1], "r+b") as file:  # noqa: PTH123 - a small program
        pulse = mmap.mmap(file.fileno(), 24)
    ticks = opened = 0
    while True:
        ticks += 1
        try:
            open_one()
            opened += 1
        except OSError:
            pass
        pulse[:24] = struct.pack("<qqq", ticks, opened, listener.getsockname()[1])
        time.sleep(0.001)


if __name__ == "__main__":
    main()
