"""A small HTTP service for tests and benchmarks: one epoll loop, keep-alive, answers by path; ends with its standard input.

Run as a program it prints its port. Paths: `/` 200 with "hello"; `/status/N`; `/close` ends the connection after its
answer; `/until-close` answers without a length; `/chunked`; `/big` one MiB; `/hang` never answers; `/drop` closes
without an answer; `/reset` resets; `/garbage` is not HTTP; `/echo` answers with the request's own bytes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + b"x" * 1_048_576
FIXED = {
    b"/": OK,
    b"/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nDone: yes\r\n\r\n",
    b"/big": BIG,
    b"/garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
}


class Service:
    """The loop and its connections."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.epoll.register(0, select.EPOLLIN)
        self.open: dict[int, socket.socket] = {}
        self.unread: dict[int, bytes] = {}
        self.unsent: dict[int, bytes] = {}

    def run(self) -> None:
        while True:
            for fd, events in self.epoll.poll():
                if fd == 0:
                    return
                if fd == self.listener.fileno():
                    self.accept()
                elif fd in self.unsent and events & select.EPOLLOUT:
                    self.send(fd, b"")
                else:
                    self.read(fd)

    def accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.open[sock.fileno()], self.unread[sock.fileno()] = sock, b""
                self.epoll.register(sock.fileno(), select.EPOLLIN)

    def read(self, fd: int) -> None:
        try:
            data = self.open[fd].recv(65_536)
        except OSError:
            data = b""
        if not data:
            self.drop(fd)
            return
        self.unread[fd] += data
        head, found, _ = self.unread[fd].partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if len(self.unread[fd]) < len(head) + 4 + length:
            return
        request, self.unread[fd] = self.unread[fd], b""
        self.answer(fd, head.split(b" ", 2)[1], request)

    def answer(self, fd: int, path: bytes, request: bytes) -> None:
        if path in FIXED:
            self.send(fd, FIXED[path])
        elif path.startswith(b"/status/"):
            self.send(fd, b"HTTP/1.1 %s Said\r\nContent-Length: 0\r\n\r\n" % path[8:])
        elif path == b"/echo":
            self.send(fd, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(request), request))
        elif path == b"/close":
            self.send(fd, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
            self.drop(fd)
        elif path == b"/until-close":
            self.send(fd, b"HTTP/1.1 200 OK\r\n\r\nhello")
            self.drop(fd)
        elif path == b"/drop":
            self.drop(fd)
        elif path == b"/reset":
            self.open[fd].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.drop(fd)
        elif path != b"/hang":
            self.send(fd, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def send(self, fd: int, data: bytes) -> None:
        data = self.unsent.pop(fd, b"") + data
        try:
            sent = self.open[fd].send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop(fd)
            return
        if sent < len(data):
            self.unsent[fd] = data[sent:]
        self.epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if fd in self.unsent else 0))

    def drop(self, fd: int) -> None:
        self.unread.pop(fd, None)
        self.unsent.pop(fd, None)
        self.open.pop(fd).close()


if __name__ == "__main__":
    service = Service(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    sys.stdout.write(f"{service.listener.getsockname()[1]}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        service.run()
