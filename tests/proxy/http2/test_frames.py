"""Frames in any order and shape: the same through the proxy as without it; and peers that mean harm."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import hpack
import pytest
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.proxy.http2 import frames
from squall.proxy.http2.frames import PREFACE, frame, headers_frames
from tests.proxy.http2.peers import JSON, Client, Message, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/flood"), (":authority", "shop")]
PATHS = ["/echo", "/late", "/late-answer", "/json", "/trailers", "/gone", "/patched"]
INDEX = st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(PATHS), st.integers(0, 9)),
        st.tuples(st.just("open"), st.sampled_from(PATHS), st.integers(0, 9)),
        st.tuples(st.just("data"), INDEX, st.integers(0, 40_000), st.none() | st.integers(0, 200)),
        st.tuples(st.just("end"), INDEX, st.booleans()),
        st.tuples(st.just("cancel"), INDEX),
        st.tuples(st.just("ping")),
        st.tuples(st.just("settings"), st.sampled_from([0, 64, 4096, 65536]), st.sampled_from([65_535, 200_000])),
        st.tuples(st.just("priority"), INDEX),
        st.tuples(st.just("read")),
    ),
    min_size=5,
    max_size=60,
)


class Script:
    """Steps played by a client, what it sent on each stream, and what it should have got."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.path: dict[int, str] = {}
        self.sent: dict[int, bytes] = {}
        self.under_way: list[int] = []
        self.resized = False

    def play(self, steps: list[tuple[Any, ...]]) -> None:
        """Play them, end every stream, and wait for all answers."""
        for name, *arguments in steps:
            getattr(self, f"do_{name}")(*arguments)
            self.client.flush()
        for stream in self.under_way:
            self.client.h2.end_stream(stream)
        self.client.flush()
        for stream in self.path:
            self.client.answer(stream)
        before = self.client.pings
        self.do_ping()
        self.client.flush()
        self.client.until(lambda: self.client.pings > before)

    def outcomes(self) -> list[tuple[Any, ...]]:
        """Path, status, body, trailers of each."""
        messages = [self.client.messages[stream] for stream in self.path]
        return [(self.path[s], m.status, bytes(m.body), m.trailers) for s, m in zip(self.path, messages, strict=True)]

    def expected(self) -> list[tuple[Any, ...]]:
        """What they should be."""
        found: list[tuple[Any, ...]] = []
        for stream, path in self.path.items():
            if path == "/gone":
                found.append((path, 503, b"gone" * 9000, []))
            elif path in ("/json", "/trailers"):
                found.append((path, 200, JSON, [("x-sum", "7"), ("x-of", "9")] if path == "/trailers" else []))
            else:
                found.append((path, 200, self.sent[stream], []))
        return found

    def _pick(self, index: int) -> int | None:
        """A stream on which the client may still send."""
        able = [stream for stream in self.under_way if self.client.messages[stream].reset is None]
        return able[index % len(able)] if able else None

    def do_open(self, path: str, fields: int) -> None:
        stream = self.client.h2.get_next_available_stream_id()
        self.client.messages[stream] = Message()
        extra = [(f"x-{number}", "v" * number * 300) for number in range(fields)]
        self.client.h2.send_headers(stream, [*HEAD[:2], (":path", path), HEAD[3], *extra])
        self.under_way.append(stream)
        self.path[stream], self.sent[stream] = path, b""

    def do_data(self, index: int, size: int, pad: int | None) -> None:
        stream = self._pick(index)
        if stream is None:
            return
        window = min(self.client.h2.local_flow_control_window(stream), self.client.h2.max_outbound_frame_size)
        room = min(size, window - (0 if pad is None else pad + 1))
        if room >= 0 and window > 0:
            data = bytes(number % 251 for number in range(room))
            self.client.h2.send_data(stream, data, pad_length=pad)
            self.sent[stream] += data

    def do_end(self, index: int, trailers: bool) -> None:  # noqa: FBT001 - a step
        stream = self._pick(index)
        if stream is not None:
            self.under_way.remove(stream)
            if trailers:
                self.client.h2.send_headers(stream, [("x-last", "1")], end_stream=True)
            else:
                self.client.h2.end_stream(stream)

    def do_cancel(self, index: int) -> None:
        stream = self._pick(index)
        if stream is not None:
            self.under_way.remove(stream)
            del self.path[stream]
            self.client.h2.reset_stream(stream, 8)

    def do_ping(self) -> None:
        self.client.h2.ping(b"12345678")

    def do_settings(self, table: int, window: int) -> None:
        mine = {SettingCodes.INITIAL_WINDOW_SIZE: window}
        if not self.resized:  # h2 takes the acknowledgement of earlier settings for that of these
            self.client.until(lambda: self.client.acknowledged)
            mine[SettingCodes.HEADER_TABLE_SIZE] = table
        self.resized = True
        self.client.h2.update_settings(mine)

    def do_priority(self, index: int) -> None:
        stream = self._pick(index)
        if stream is not None:
            self.client.h2.prioritize(stream, weight=9)

    def do_read(self) -> None:
        self.client.sock.settimeout(0.01)
        with contextlib.suppress(TimeoutError):
            self.client.receive()
        self.client.sock.settimeout(15)


def toxics(control: Any) -> None:
    """One of each, for the paths that name them."""
    control.add_toxic("late", "http_delay", "upstream", attributes={"path": "/late", "delay": 5, "jitter": 5})
    control.add_toxic(
        "answer", "http_delay", "downstream", attributes={"path": "/late-answer", "delay": 5, "jitter": 5}
    )
    control.add_toxic("gone", "http_abort", "upstream", attributes={"path": "/gone", "body": "gone" * 9000})
    control.add_toxic(
        "patched",
        "http_patch",
        "upstream",
        attributes={"path": "/patched", "body": {"never": 1}, "set_headers": {"a": "b"}},
    )


@pytest.mark.parametrize("way", ["direct", "no rule", "rules", "rules and slices"])
def test_any_interleaving_of_frames_comes_to_what_it_should(bench: Any, way: str) -> None:
    """Both ends are strict: a frame out of order, a window overrun or a wrong table ends the connection."""
    server = Server()
    upstream = bench.upstream(server)
    proxy = bench.proxy(upstream)
    if way.startswith("rules"):
        toxics(proxy.control)
    if way.endswith("slices"):
        proxy.control.add_toxic("s", "slicer", "upstream", attributes={"average_size": 500, "size_variation": 490})

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(steps=STEPS)
    def plays(steps: list[tuple[Any, ...]]) -> None:
        if not way.startswith("rules"):
            steps = [step for step in steps if step[1:2] != ("/gone",)]
        address = ("127.0.0.1", upstream.port) if way == "direct" else (proxy.host, proxy.port)
        with socket.create_connection(address, 15) as sock:
            script = Script(Client(sock))
            script.play(steps)
            assert script.outcomes() == script.expected()
        assert proxy.process.poll() is None

    plays()
    bench.until(lambda: proxy.control._ask("ping")["held_bytes"] == 0, "nothing is left in hand")
    assert proxy.control.stats()["http"]["not_http"] == 0


# Harm


def _begin(sock: socket.socket) -> None:
    sock.sendall(PREFACE + frame(frames.SETTINGS, 0, 0))


def _continuations() -> Iterator[bytes]:
    yield frame(frames.HEADERS, 0, 1, b"\x82")
    while True:
        yield frame(frames.CONTINUATION, 0, 1, b"") * 1000


def _heads() -> Iterator[bytes]:
    """Streams that are reset as soon as they begin."""
    block = hpack.Encoder().encode(HEAD)
    for stream in range(1, 1 << 30, 2):
        yield headers_frames(stream, block if stream == 1 else b"\x83\x86\xbf\xbe", end=False) + frames.number_frame(
            frames.RST_STREAM, stream, 8
        )


def _streams() -> Iterator[bytes]:
    """Streams that are never ended, each to be answered with much for which there is no window."""
    yield frame(frames.SETTINGS, 0, 0, frames.settings_payload([(frames.INITIAL_WINDOW_SIZE, 0)]))
    block = hpack.Encoder().encode(HEAD)
    for stream in range(1, 1 << 30, 2):
        yield headers_frames(stream, block if stream == 1 else b"\x83\x86\xbf\xbe", end=False)


def _settings() -> Iterator[bytes]:
    while True:
        yield frame(frames.SETTINGS, 0, 0, frames.settings_payload([(frames.HEADER_TABLE_SIZE, 0)])) * 500


def _bomb() -> Iterator[bytes]:
    block = hpack.Encoder().encode([("x", "y" * 3900)])
    yield headers_frames(1, block, end=False)
    for stream in range(3, 1 << 30, 2):
        yield headers_frames(stream, b"\xbe" * 16000, end=False)


FLOODS = {
    "continuations": _continuations,
    "rapid reset": _heads,
    "streams": _streams,
    "settings": _settings,
    "bomb": _bomb,
}


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123 - one number
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("flood", FLOODS)
def test_a_peer_that_floods_takes_no_memory_and_nobodys_turn(bench: Any, flood: str) -> None:
    """The flooder never reads. The service behind it takes everything and says nothing but its settings."""

    def sink(sock: socket.socket) -> None:
        sock.sendall(frame(frames.SETTINGS, 0, 0))
        while sock.recv(1 << 20):
            pass

    proxy = bench.proxy(bench.upstream(sink), total_bytes=64 << 20)
    proxy.control.add_toxic("gone", "http_abort", "upstream", attributes={"path": "/flood", "body": "x" * 500_000})
    before = _resident(proxy.process.pid)
    sock = proxy.connect()
    sock.settimeout(0.5)
    _begin(sock)
    deadline, slowest = time.monotonic() + 2.5, 0.0
    pieces = FLOODS[flood]()
    with contextlib.suppress(OSError):  # it may be held back, or shown out
        while time.monotonic() < deadline:
            sock.sendall(b"".join(next(pieces) for _ in range(20)))
            began = time.monotonic()
            proxy.control.ping()
            slowest = max(slowest, time.monotonic() - began)
    assert proxy.process.poll() is None
    assert _resident(proxy.process.pid) - before < 150 << 20
    assert slowest < 1
    proxy.control.remove_toxic("gone")
    healthy = Server()
    control = proxy.control
    control._ask("update", name="route", listen=f"{proxy.host}:{proxy.port}", upstream=bench.upstream(healthy).address)
    assert Client(proxy.connect()).get("/json").status == 200


PING = frame(frames.PING, 0, 0, bytes(8))
GARBAGE = {
    "a frame too large": frame(frames.DATA, 0, 1, bytes(70_000)),
    "data before settings": None,
    "a wrong preface": b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n",
    "a block that is none": PREFACE + frame(frames.SETTINGS, 0, 0) + frame(frames.HEADERS, 4, 1, b"\x80"),
    "padding that is too long": PREFACE + frame(frames.SETTINGS, 0, 0) + frame(frames.HEADERS, 12, 1, b"\xff\x82"),
    "a window of no size": PREFACE + frame(frames.SETTINGS, 0, 0) + frame(frames.WINDOW_UPDATE, 0, 0, b"\0"),
    "settings of odd size": PREFACE + frame(frames.SETTINGS, 0, 0, b"12345"),
    "settings last": PREFACE + PING,
    "another frame in a block": PREFACE + frame(frames.SETTINGS, 0, 0) + frame(frames.HEADERS, 0, 1, b"\x82") + PING,
    "a continuation of nothing": PREFACE + frame(frames.SETTINGS, 0, 0) + frame(frames.CONTINUATION, 4, 1, b"\x82"),
}  # fmt: skip


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_no_http2_passes_as_it_came_and_is_counted(bench: Any, sockets: Any, what: str) -> None:
    """The other end may know better."""
    raw = GARBAGE[what] or PREFACE + frame(frames.DATA, 0, 1, b"x")
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    proxy.control.add_toxic("never", "http_delay", "upstream", attributes={"path": "/never"})
    client = proxy.connect()
    server = upstream.accept()
    client.sendall(raw)
    client.shutdown(socket.SHUT_WR)
    pushed = raw.replace(frame(frames.SETTINGS, 0, 0), frame(frames.SETTINGS, 0, 0, b"\0\2\0\0\0\0"), 1)
    assert sockets.receive_all(server) == pushed
    server.sendall(b"what?")
    assert sockets.receive(client, 5) == b"what?"
    assert proxy.control.stats()["http"]["not_http"] == 1
    assert proxy.hits("never")["not_http"] == 1


def test_a_service_that_speaks_no_http2_is_heard(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    client = proxy.connect()
    _begin(client)
    server = upstream.accept()
    assert sockets.receive(server, len(PREFACE)) == PREFACE
    server.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert sockets.receive(client, 12) == b"HTTP/1.1 400"


def test_a_service_whose_settings_come_first_is_followed(bench: Any) -> None:
    """A gRPC service does not wait for the client's preface."""
    proxy = bench.proxy(bench.upstream(Server()))
    proxy.control.add_toxic("gone", "http_abort", "upstream", attributes={"path": "/flood"})
    sock = proxy.connect()
    assert sock.recv(9, socket.MSG_PEEK)[3] == frames.SETTINGS
    client = Client(sock)
    assert (client.get("/flood").status, client.get("/json").status) == (503, 200)


def test_a_banner_that_begins_as_settings_might_is_not_kept(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    client = proxy.connect()
    server = upstream.accept()
    server.sendall(b"\0\0\x06\x04")
    assert sockets.receive(client, 4) == b"\0\0\x06\x04"
    server.sendall(b"more")
    assert sockets.receive(client, 4) == b"more"
