"""What each toxic does to a connection, as Toxiproxy was observed to do it, and where we mean to be better."""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from typing import Any

import pytest

from squall.actions.proxy_control import ProxyRefused
from squall.proxy.toxics import Toxic
from squall.proxy.toxics.latency import Latency, LatencyAttributes


def round_trip_ms(client: Any, sockets: Any, size: int = 1) -> float:
    started = time.monotonic()
    sender = threading.Thread(target=client.sendall, args=(b"x" * size,))
    sender.start()
    assert len(sockets.receive(client, size)) == size
    sender.join()
    return (time.monotonic() - started) * 1e3


@pytest.fixture
def proxy(bench: Any) -> Any:
    return bench.proxy(bench.upstream(bench.echo), http=False)


# Latency


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_latency_is_added_and_taken_away_on_a_live_connection(proxy: Any, sockets: Any, stream: str) -> None:
    client = proxy.connect()
    proxy.control.add_toxic("l", "latency", stream, attributes={"latency": 40})
    times = [round_trip_ms(client, sockets) for _ in range(10)]
    assert min(times) >= 40  # never early
    assert statistics.median(times) < 120
    proxy.control.update_toxic("l", attributes={"latency": 10, "latency_ns": 500_000})
    times = [round_trip_ms(client, sockets) for _ in range(10)]
    assert min(times) >= 10.5
    proxy.control.remove_toxic("l")
    assert min(round_trip_ms(client, sockets) for _ in range(10)) < 10
    assert proxy.hits("l")["chunks"] == 20
    assert proxy.hits("l")["connections"] == 1


def test_latencies_add_up(proxy: Any, sockets: Any) -> None:
    for name in ("a", "b"):
        proxy.control.add_toxic(name, "latency", "upstream", attributes={"latency": 20})
    times = [round_trip_ms(proxy.connect(), sockets) for _ in range(5)]
    assert min(times) >= 40
    assert statistics.median(times) < 120


def test_what_is_held_goes_on_at_once_when_the_latency_goes(proxy: Any, sockets: Any, bench: Any) -> None:
    proxy.control.add_toxic("l", "latency", "upstream", attributes={"latency": 60_000})
    client = proxy.connect()
    client.sendall(b"held")
    bench.until(lambda: proxy.hits("l")["bytes"] == 4, "it is held")
    started = time.monotonic()
    proxy.control.remove_toxic("l")
    assert sockets.receive(client, 4) == b"held"
    assert time.monotonic() - started < 5


def test_what_is_held_follows_a_shorter_latency(proxy: Any, sockets: Any, bench: Any) -> None:
    proxy.control.add_toxic("l", "latency", "upstream", attributes={"latency": 60_000})
    client = proxy.connect()
    client.sendall(b"held")
    bench.until(lambda: proxy.hits("l")["bytes"] == 4, "it is held")
    proxy.control.update_toxic("l", attributes={"latency": 1})
    assert sockets.receive(client, 4) == b"held"


class StillHost:
    """A direction on which nothing is ever due."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.loop = self

    def call_at(self, due_ns: int, call: Any, *, precise: bool = False) -> None:
        """Forget it."""

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")


def draws_ms(seed: int, **attributes: Any) -> list[float]:
    """The delays of pieces that arrive a second apart."""
    wanted = LatencyAttributes(latency=10, jitter=8, **attributes)
    stage = Latency(StillHost(seed), Toxic("l", "latency", "upstream", 1.0, wanted), wanted)  # type: ignore[arg-type]
    begin_ns = time.monotonic_ns() + 10**9
    for number in range(1000):
        stage.feed(b"x", begin_ns + number * 10**9)
    return [(due_ns - stamp_ns) / 1e6 for due_ns, stamp_ns, _ in stage._queue]


def step_ms(draws: list[float]) -> float:
    return statistics.fmean(abs(a - b) for a, b in itertools.pairwise(draws))


def test_jitter_is_even_around_the_latency_and_replayed_from_the_seed() -> None:
    draws = draws_ms(1)
    assert draws == draws_ms(1)
    assert draws != draws_ms(2)
    assert 2 <= min(draws) < 2.2
    assert 17.8 < max(draws) <= 18
    assert statistics.fmean(draws) == pytest.approx(10, abs=0.5)


def test_correlation_makes_neighbours_alike() -> None:
    assert step_ms(draws_ms(1)) > 4
    assert step_ms(draws_ms(1, correlation=0.95)) < 0.5
    assert len(set(draws_ms(1, correlation=1.0))) == 1


# Bandwidth, slicer


@pytest.mark.parametrize(
    ("attributes", "bytes_per_s"),
    [({"rate": 1000}, 1_000_000), ({"rate_bytes": 500_000}, 500_000), ({"rate": 10_000}, 10_000_000)],
)
def test_bandwidth_is_the_average(proxy: Any, sockets: Any, attributes: dict[str, int], bytes_per_s: int) -> None:
    proxy.control.add_toxic("b", "bandwidth", "upstream", attributes=attributes)
    size = bytes_per_s // 2
    took_ms = round_trip_ms(proxy.connect(), sockets, size)
    assert 490 <= took_ms < 2000


def test_a_bandwidth_of_zero_lets_nothing_pass_until_it_grows(proxy: Any, sockets: Any, bench: Any) -> None:
    proxy.control.add_toxic("b", "bandwidth", "upstream", attributes={"rate": 0})
    client = proxy.connect()
    client.sendall(b"x" * 100)
    bench.until(lambda: proxy.hits("b")["bytes"] == 100, "it is held")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    proxy.control.update_toxic("b", attributes={"rate": 100})
    assert sockets.receive(client, 100) == b"x" * 100


def test_slices_arrive_one_by_one(bench: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    proxy.control.add_toxic(
        "s", "slicer", "upstream", attributes={"average_size": 100, "size_variation": 50, "delay": 20_000}
    )
    client = proxy.connect()
    server = upstream.accept()
    client.sendall(b"x" * 1000)
    sizes = []
    while sum(sizes) < 1000:
        sizes.append(len(server.recv(65536)))
    assert len(sizes) >= 6
    assert all(50 <= size <= 150 for size in sizes[:-1])
    assert proxy.hits("s")["bytes"] == 1000


# Ends


def test_a_slow_close_delays_the_end_only(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    proxy.control.add_toxic("c", "slow_close", "downstream", attributes={"delay": 800})
    client = proxy.connect()
    server = upstream.accept()
    started = time.monotonic()
    server.sendall(b"bye")
    server.close()
    assert sockets.receive(client, 3) == b"bye"
    assert time.monotonic() - started < 0.7
    assert sockets.how_it_ends(client) == "end"
    assert time.monotonic() - started >= 0.8
    assert proxy.hits("c")["closed"] == 1


def test_an_end_that_waits_comes_when_slow_close_goes(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    proxy.control.add_toxic("c", "slow_close", "downstream", attributes={"delay": 60_000})
    client = proxy.connect()
    upstream.accept().close()
    bench.until(lambda: proxy.hits("c")["closed"] == 1, "the end waits")
    proxy.control.remove_toxic("c")
    assert sockets.how_it_ends(client) == "end"


@pytest.mark.slow
def test_a_timeout_closes_after_silence_and_each_piece_starts_it_anew(proxy: Any, sockets: Any) -> None:
    proxy.control.add_toxic("t", "timeout", "upstream", attributes={"timeout": 1000})
    client = proxy.connect()
    started = time.monotonic()
    for _ in range(4):
        client.sendall(b"x")
        threading.Event().wait(0.3)
    assert sockets.how_it_ends(client) == "end"
    assert 1.9 <= time.monotonic() - started < 6
    assert proxy.hits("t")["bytes"] == 4
    assert proxy.hits("t")["closed"] == 1


def test_a_timeout_of_zero_is_a_black_hole_and_its_removal_closes(proxy: Any, sockets: Any) -> None:
    proxy.control.add_toxic("t", "timeout", "upstream", attributes={"timeout": 0})
    client = proxy.connect()
    client.sendall(b"x")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    proxy.control.remove_toxic("t")
    assert sockets.how_it_ends(client) == "end"


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
@pytest.mark.parametrize("live", [True, False])
def test_reset_peer_resets_once_data_flows(proxy: Any, sockets: Any, stream: str, live: bool) -> None:  # noqa: FBT001 - a parameter
    """Also connections that are older than the toxic, which Toxiproxy only ends."""
    client = proxy.connect() if live else None
    if client:
        round_trip_ms(client, sockets)
    proxy.control.add_toxic("r", "reset_peer", stream, attributes={"timeout": 50})
    client = client or proxy.connect()
    started = time.monotonic()
    client.sendall(b"x")
    assert sockets.how_it_ends(client) == "reset"
    assert time.monotonic() - started >= 0.05
    assert proxy.hits("r")["closed"] == 1


def test_reset_peer_leaves_silent_connections_alone(proxy: Any, sockets: Any) -> None:
    client = proxy.connect()
    round_trip_ms(client, sockets)
    proxy.control.add_toxic("r", "reset_peer", "upstream")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.control.remove_toxic("r")
    client.settimeout(10)
    round_trip_ms(client, sockets)


@pytest.mark.parametrize("limit", [0, 5, 10, 200_000])
def test_limit_data_passes_so_many_bytes_and_closes(bench: Any, sockets: Any, limit: int) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    proxy.control.add_toxic("d", "limit_data", "upstream", attributes={"bytes": limit})
    client = proxy.connect()
    server = upstream.accept()
    client.sendall(b"x" * max(10, limit))
    assert len(sockets.receive_all(server)) == limit
    assert sockets.how_it_ends(client) == "end"
    assert proxy.hits("d")["closed"] == 1


# Which connections


def is_hit(proxy: Any, client: Any, sockets: Any) -> bool:
    """Whether the toxic `l` counts a round trip on this connection."""
    before = proxy.hits("l")["chunks"]
    round_trip_ms(client, sockets)
    return bool(proxy.hits("l")["chunks"] > before)


def test_the_share_of_connections_is_drawn_from_the_seed(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream(bench.echo)

    def drawn(seed: int) -> list[bool]:
        proxy = bench.proxy(upstream, seed=seed)
        proxy.control.add_toxic("l", "latency", "downstream", 0.4, {"latency": 1})
        return [is_hit(proxy, proxy.connect(), sockets) for _ in range(60)]

    first = drawn(1)
    assert first == drawn(1)
    assert first != drawn(2)
    assert 10 <= sum(first) <= 40


def test_a_connection_keeps_its_draw_when_other_things_change(bench: Any, sockets: Any) -> None:
    """A larger share only adds connections; changed attributes and other toxics change none."""
    proxy = bench.proxy(bench.upstream(bench.echo))
    proxy.control.add_toxic("l", "latency", "downstream", 0.3, {"latency": 1})
    clients = [proxy.connect() for _ in range(40)]

    def hit() -> list[bool]:
        return [is_hit(proxy, client, sockets) for client in clients]

    first = hit()
    proxy.control.update_toxic("l", attributes={"latency": 2})
    proxy.control.add_toxic("s", "slicer", "downstream", attributes={"average_size": 100})
    assert hit() == first
    proxy.control.update_toxic("l", toxicity=0.7)
    larger = hit()
    assert all(after for before, after in zip(first, larger, strict=True) if before)
    assert sum(larger) > sum(first)
    proxy.control.update_toxic("l", toxicity=0.3)
    assert hit() == first


def test_an_updated_toxic_keeps_its_place_in_the_order(proxy: Any) -> None:
    for name in ("a", "b", "c"):
        proxy.control.add_toxic(name, "latency", "upstream")
    proxy.control.add_toxic("d", "latency", "downstream")
    proxy.control.add_toxic("e", "latency", "upstream")
    proxy.control.update_toxic("b", toxicity=0.5)
    assert [toxic["name"] for toxic in proxy.control.toxics()] == ["a", "b", "c", "e", "d"]


# Saying it twice, saying it wrong


def test_the_control_is_harmless_to_repeat(proxy: Any) -> None:
    assert proxy.control.add_toxic("l", "latency", attributes={"latency": 5})
    assert not proxy.control.add_toxic("l", "latency", attributes={"latency": 5})
    with pytest.raises(ProxyRefused, match="already exists"):
        proxy.control.add_toxic("l", "latency", attributes={"latency": 6})
    assert proxy.control.remove_toxic("l")
    assert not proxy.control.remove_toxic("l")
    for _ in range(2):
        proxy.control.disable()
    for _ in range(2):
        proxy.control.enable()


def test_what_cannot_be_done_is_said(proxy: Any) -> None:
    with pytest.raises(ProxyRefused, match="invalid toxic type"):
        proxy.control.add_toxic("x", "slowness")
    with pytest.raises(ProxyRefused, match="stream was invalid"):
        proxy.control.add_toxic("x", "latency", "sideways")
    with pytest.raises(ProxyRefused, match=r"latency: 1\.5 is not a whole number"):
        proxy.control.add_toxic("x", "latency", attributes={"latency": 1.5})
    with pytest.raises(ProxyRefused, match="correlation"):
        proxy.control.add_toxic("x", "latency", attributes={"correlation": 2.0})
    assert proxy.control.toxics() == []


# Down


def test_disabled_refuses_and_ends_open_connections(proxy: Any, sockets: Any) -> None:
    client = proxy.connect()
    round_trip_ms(client, sockets)
    proxy.control.disable()
    assert sockets.how_it_ends(client) == "end"
    with pytest.raises(ConnectionRefusedError):
        proxy.connect()
    proxy.control.enable()
    round_trip_ms(proxy.connect(), sockets)


def test_an_upstream_that_refuses_ends_the_connection(bench: Any, sockets: Any) -> None:
    upstream = bench.upstream()
    proxy = bench.proxy(upstream)
    upstream.close()
    assert sockets.how_it_ends(proxy.connect()) in ("end", "reset")
    bench.until(lambda: proxy.control.stats()["open"] == 0, "nothing stays open")


def test_names_and_ipv6(bench: Any, sockets: Any) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo, host="::1"), listen="[::1]:0")
    round_trip_ms(proxy.connect(), sockets)
    by_name = bench.proxy(f"localhost:{bench.upstream(bench.echo).port}", listen="localhost:0")
    for _ in range(3):
        round_trip_ms(by_name.connect(), sockets)
    unknown = bench.proxy("no-such-host.invalid:1")
    assert sockets.how_it_ends(unknown.connect()) == "end"
