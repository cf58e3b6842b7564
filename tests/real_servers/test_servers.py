"""The servers that other tests lean on are real, and answer."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
import redis

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_redis_answers_a_real_client(redis_server: servers.RedisServer) -> None:
    with redis.Redis(redis_server.host, redis_server.port) as client:
        assert client.ping()
        assert client.set("orders", "1")
        assert client.get("orders") == b"1"


@pytest.mark.slow
def test_prometheus_answers_promql(prometheus_server: servers.PrometheusServer) -> None:
    deadline = time.monotonic() + 30
    while not (found := prometheus_server.query('up{job="prometheus"} == 1')):
        assert time.monotonic() < deadline, "Prometheus has not scraped itself"
        time.sleep(0.1)
    assert found[0]["value"][1] == "1"  # type: ignore[index]  # as Prometheus' API documents it


@pytest.mark.slow
def test_prometheus_scrapes_what_it_is_given(prometheus_server: servers.PrometheusServer) -> None:
    prometheus_server.scrape("again", prometheus_server.url.removeprefix("http://"))
    deadline = time.monotonic() + 30
    while not prometheus_server.query('up{job="again"} == 1'):
        assert time.monotonic() < deadline, "the target was not taken up"
        time.sleep(0.1)


def test_a_server_ends_with_its_context(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server:
        port = server.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_lost_race_for_a_port_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.redis(tmp_path) as first:
        ports: Iterator[int] = iter((first.port, servers.free_port()))
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))
        (tmp_path / "second").mkdir()
        with servers.redis(tmp_path / "second") as second:
            assert second.port != first.port


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_is_missing_is_said_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no-such-server is not here: sudo apt-get install no-such-server"):
        servers.program("no-such-server")
