"""Real servers in threads of the test's process, and what a test looks at."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from squall_resilience.server.pools import PriorityPools

__all__ = ["asgi_server", "gauge", "outcomes", "raw_request", "until", "wsgi_server"]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, with a bound."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


@contextlib.contextmanager
def asgi_server(app: Any) -> Iterator[int]:
    """A uvicorn that serves the application; its port."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def wsgi_server(app: Any) -> Iterator[int]:
    """A threaded wsgiref that serves the application; its port."""
    with make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(20)


def raw_request(port: int, path: str, *headers: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request has been sent, and nothing been read."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    method = "POST" if body else "GET"
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""]
    client.sendall("\r\n".join(lines).encode() + body)
    return client


def gauge(pools: PriorityPools, name: str, pool: str = "default") -> float:
    """One of `workers`, `busy`, `waiting`."""
    wanted = (f"resilience_pool_{name}", pool)
    return next(each.value for each in pools.samples() if (each.name, dict(each.labels)["pool"]) == wanted)


def outcomes(pools: PriorityPools, pool: str = "default") -> dict[str, float]:
    """Requests by outcome."""
    return {
        dict(each.labels)["outcome"]: each.value
        for each in pools.samples()
        if each.kind == "counter" and dict(each.labels)["pool"] == pool
    }
