"""No byte is lost, doubled or overtaken, whatever comes and goes in mid-stream."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from typing import Any

import pytest

TOGGLES = 1000
STREAMS = ("upstream", "downstream")


class Stream(threading.Thread):
    """Sends random pieces of random data until told to stop, then its end; hashes what it sent."""

    def __init__(self, sock: socket.socket, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._sock, self._random, self._stop_it = sock, random.Random(seed), stop
        self._block = self._random.randbytes(1 << 20)
        self.digest, self.size = hashlib.sha256(), 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stop_it.is_set():
                most = self._random.choice((100, 5_000, 200_000, 1_000_000))
                start = self._random.randrange(1 << 19)
                piece = self._block[start : start + self._random.randint(1, most)]
                self.digest.update(piece)
                self.size += len(piece)
                self._sock.sendall(piece)
                if most < 200_000 and self._random.random() < 0.3:
                    self._stop_it.wait(self._random.random() * 0.003)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = error


class Sink(threading.Thread):
    """Hashes what comes until the end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self._sock = sock
        self.digest, self.size = hashlib.sha256(), 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while part := self._sock.recv(1 << 18):
                self.digest.update(part)
                self.size += len(part)
        except OSError as error:
            self.error = error


def random_toxic(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A toxic that loses nothing by design, with random attributes."""
    match draw.randrange(5):
        case 0:
            return "latency", {
                "latency": draw.choice((0, 1, 5, 20)),
                "jitter": draw.choice((0, 3)),
                "correlation": draw.random(),
            }
        case 1:
            return "bandwidth", {"rate": draw.choice((20_000, 100_000, 1_000_000))}
        case 2:
            return "slicer", {
                "average_size": draw.choice((700, 30_000)),
                "size_variation": draw.choice((0, 500)),
                "delay": draw.choice((0, 50)),
            }
        case 3:
            return "limit_data", {"bytes": 1 << 50}
        case _:
            return "slow_close", {"delay": 5}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["splice", "copy"])
def test_streams_both_ways_arrive_whole_while_toxics_come_and_go(bench: Any, engine: str) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream, engine=engine)
    stop = threading.Event()
    streams: list[tuple[Stream, Sink]] = []
    for number in range(3):
        client = proxy.connect()
        server = upstream.accept()
        for sock in (client, server):
            sock.settimeout(60)
        streams.append((Stream(client, 2 * number, stop), Sink(server)))
        streams.append((Stream(server, 2 * number + 1, stop), Sink(client)))
    for pair in streams:
        for thread in pair:
            thread.start()

    draw, there = random.Random(99), dict[str, str]()
    for toggle in range(TOGGLES):
        if there and (len(there) > 5 or draw.random() < 0.5):
            name = draw.choice(sorted(there))
            if draw.random() < 0.3:
                kind = there[name]
                attributes = next(attributes for k, attributes in iter(lambda: random_toxic(draw), None) if k == kind)
                proxy.control.update_toxic(name, toxicity=draw.choice((0.5, 1.0)), attributes=attributes)
            else:
                assert proxy.control.remove_toxic(name)
                del there[name]
        else:
            kind, attributes = random_toxic(draw)
            name = f"{kind}-{toggle}"
            proxy.control.add_toxic(name, kind, draw.choice(STREAMS), draw.choice((0.5, 1.0)), attributes)
            there[name] = kind
    stop.set()
    for stream, sink in streams:
        stream.join(60)
        sink.join(60)
        assert not stream.is_alive()
        assert not sink.is_alive()
        assert stream.error is None
        assert sink.error is None
        assert (sink.size, sink.digest.hexdigest()) == (stream.size, stream.digest.hexdigest())
        assert sink.size > 1_000_000
    stats = proxy.control.stats()
    assert stats["received"] == stats["sent"]
    assert stats["received"]["upstream"] == sum(sink.size for _, sink in streams[::2])
    bench.until(lambda: proxy.control.stats()["open"] == 0, "connections are closed")


@pytest.mark.parametrize("engine", ["splice", "copy"])
@pytest.mark.parametrize("size", [1, 65_536, 3_000_000])
def test_half_close_is_kept(bench: Any, sockets: Any, engine: str, size: int) -> None:
    """An answer that comes after the client's end still arrives."""
    upstream = bench.upstream()
    proxy = bench.proxy(upstream, engine=engine)
    client = proxy.connect()
    server = upstream.accept()
    data = random.Random(size).randbytes(size)
    sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
    sender.start()
    assert sockets.receive_all(server) == data
    sender.join()
    sender = threading.Thread(target=lambda: (server.sendall(data[::-1]), server.close()))
    sender.start()
    assert sockets.receive_all(client) == data[::-1]
    sender.join()


def test_a_reset_passes_as_a_reset_after_the_data_before_it(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    proxy.control.add_toxic("late", "latency", "downstream", attributes={"latency": 50})
    client = proxy.connect()
    server = upstream.accept()
    server.sendall(b"last words")
    bench.until(lambda: proxy.control.stats()["received"]["downstream"] == 10, "the proxy has read them")
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    assert sockets.receive(client, 10) == b"last words"
    assert sockets.how_it_ends(client) == "reset"
    bench.until(lambda: proxy.control.stats()["open"] == 0, "the connection is closed")


@pytest.mark.parametrize("engine", ["splice", "copy"])
@pytest.mark.parametrize("toxic", [None, "latency", "bandwidth", "slicer"])
def test_a_reader_that_stops_holds_its_sender_back(bench: Any, engine: str, toxic: str | None) -> None:
    """What the proxy holds is bounded, and all of it arrives when the reader goes on."""
    upstream = bench.upstream()
    proxy = bench.proxy(upstream, engine=engine, queue_bytes=4 << 20)
    attributes = {"latency": {"latency": 1}, "bandwidth": {"rate": 1_000_000}, "slicer": {"average_size": 5000}}
    if toxic:
        proxy.control.add_toxic("t", toxic, "upstream", attributes=attributes[toxic])
    client = proxy.connect()
    server = upstream.accept()
    client.setblocking(False)
    block, sent, quiet = bytes(range(256)) * 1024, 0, 0
    while quiet < 50:
        try:
            sent += client.send(block[sent % 256 :])
            quiet = 0
        except BlockingIOError:
            quiet += 1
            threading.Event().wait(0.01)
    assert sent < 64 << 20
    client.shutdown(socket.SHUT_WR)
    digest, size = hashlib.sha256(), 0
    while part := server.recv(1 << 18):
        digest.update(part)
        size += len(part)
    assert size == sent
    assert digest.digest() == hashlib.sha256((bytes(range(256)) * (sent // 256 + 1))[:sent]).digest()


def test_a_thousand_short_connections_leave_nothing_open(bench: Any, sockets: Any) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo))
    for number in range(1000):
        with proxy.connect() as client:
            client.sendall(b"%d" % number)
            assert sockets.receive(client, len(str(number))) == b"%d" % number
        proxy.clients.clear()
    bench.until(lambda: proxy.control.stats()["open"] == 0, "connections are closed")
    assert proxy.control.stats()["connections"] == 1000
