"""A route's proxy and its toxics as steps: done, counted, changed, undone, also after whoever did them was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import ProxyRoute, RouteDown, Toxic, decode, encode
from squall.actions.worker import surviving
from squall.errors import ActionFailed
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from squall.actions import Action

    Doing = Callable[[Action], AbstractContextManager[tuple[Action, tuple[int, ...]]]]


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a service that says back what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    while data := client.recv(4096):
                        client.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def route(echo: str, token: str, tmp_path: Path) -> ProxyRoute:
    """A proxy in front of it, not yet started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    return ProxyRoute(token, listen, echo, str(tmp_path / "proxy.sock"), seed=7)


def round_trip(address: str) -> float:
    """How many seconds an echo takes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        began = time.monotonic()
        client.sendall(b"hello")
        assert client.recv(64) == b"hello"
        return time.monotonic() - began


def slow(route: ProxyRoute) -> Toxic:
    """400 ms of delay on it."""
    attributes = {"latency": 400, "jitter": 0}
    return Toxic(
        route.control, f"route {route.listen} -> {route.upstream}", "slow", "latency", "downstream", 1.0, attributes
    )


def test_a_route_passes_everything_on_and_leaves_nothing(route: ProxyRoute, doing: Doing) -> None:
    route.undo()
    with doing(route) as (action, _):
        assert isinstance(action, ProxyRoute)
        assert action.in_force()
        assert round_trip(route.listen) < 0.3
        assert not action.verify().normal
    route.undo()
    assert not Path(route.control).exists()
    with pytest.raises(ConnectionRefusedError):
        round_trip(route.listen)


def test_a_port_in_use_is_said(route: ProxyRoute, echo: str) -> None:
    with pytest.raises(ActionFailed, match=r"^[^{].*in use"):
        replace(route, listen=echo).do()
    assert not surviving(route.token)


def test_a_toxic_is_put_on_changed_counted_and_taken_off(route: ProxyRoute, doing: Doing) -> None:
    toxic = slow(route)
    toxic.undo()
    assert toxic.verify().normal
    with doing(route):
        toxic.undo()
        with doing(toxic) as (action, held):
            assert isinstance(action, Toxic)
            assert round_trip(route.listen) >= 0.4
            assert not action.verify().normal
            assert action.counters()["connections"] == 1
            assert action.become(replace(toxic, attributes={"latency": 0, "jitter": 0}), held)
            assert round_trip(route.listen) < 0.3
            assert not action.become(replace(toxic, type="bandwidth"), held)
        assert round_trip(route.listen) < 0.3
        toxic.undo()
    assert toxic.counters() == {}


def test_a_route_that_is_down_refuses_and_comes_back(route: ProxyRoute, doing: Doing) -> None:
    down = RouteDown(route.control, "route a -> b")
    down.undo()
    assert down.verify().normal
    with doing(route):
        with doing(down) as (action, _):
            with pytest.raises(ConnectionRefusedError):
                round_trip(route.listen)
            assert action.verify().detail == "the route is closed"
        assert round_trip(route.listen) < 0.3
        down.undo()


def test_toxics_go_with_a_proxy_that_is_killed(route: ProxyRoute) -> None:
    (life_line,) = route.do()
    toxic = slow(route)
    toxic.do()
    os.kill(surviving(route.token)[0].pid, signal.SIGKILL)
    specimens.wait_for(lambda: not route.in_force(), "the proxy has ended")
    os.close(life_line)
    for action in (toxic, route):
        action.undo()
        assert action.verify().normal
    assert not Path(route.control).exists()


def test_another_process_can_take_them_off(route: ProxyRoute) -> None:
    (life_line,) = route.do()
    toxic = slow(route)
    toxic.do()
    script = (
        "import json\n"
        "from squall.actions import decode\n"
        "for text in sys.argv[1:]:\n"
        "    action = decode(json.loads(text))\n"
        "    action.undo()\n"
        "    print(action.verify().normal)\n"
    )
    ran = specimens.elsewhere(script, json.dumps(encode(toxic)), json.dumps(encode(route)))
    assert ran.stdout.split() == ["True", "True"], ran.stderr
    os.close(life_line)
    route.undo()
    assert decode(json.loads(json.dumps(encode(toxic)))) == toxic
