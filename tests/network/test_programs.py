"""Programs that no one here wrote are struck as they run: curl, Redis, nginx, a static Go client."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.targets import find_cgroup, find_processes
from tests.network.striking import striking
from tests.network.wires import FAR, NEAR, wire
from tests.programs.build import go_program
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel_world import KernelWorld
    from tests.network.wires import Wire

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


class _Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say hello."""
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def cable() -> Iterator[Wire]:
    with wire() as found:
        yield found


@pytest.fixture
def url() -> Iterator[str]:
    """A server at the near end."""
    with http.server.ThreadingHTTPServer((NEAR[4], 0), _Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{NEAR[4]}:{server.server_port}/"
        server.shutdown()


def program(name: str, package: str) -> str:
    """Where it is; the test is skipped where it is not."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {name}: apt-get install {package}")
    return found


@contextmanager
def running(
    cable: Wire, *argv: str, stdin: int | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program at the far end."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", cable.name, *argv],
        stdin=stdin,
        stdout=stdout or subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def test_curl_in_a_cgroup_is_cut_off_and_the_other_curl_is_not(
    cable: Wire, url: str, kernel_world: KernelWorld
) -> None:
    curl, group = program("curl", "curl"), kernel_world.subgroup("curl")

    def fetched(inside: Path) -> bool:
        script = f"echo $$ > {inside}/cgroup.procs; exec {curl} -s -o /dev/null --max-time 1 {url}"
        argv = ["nsenter", f"--net=/run/netns/{cable.name}", "sh", "-c", script]
        return subprocess.run(argv, check=False).returncode == 0

    other = kernel_world.subgroup("other")
    with running(cable, "sleep", "60") as holder:  # whose network the group's is
        (group / "cgroup.procs").write_text(str(holder.pid))
        with striking("network.partition", {"direction": "ingress"}, find_cgroup(str(group))):
            assert not fetched(group)
            assert fetched(other)
        assert fetched(group)


def test_a_static_go_client_waits_on_the_connection_that_it_has(cable: Wire, url: str) -> None:
    with running(cable, str(go_program("caller")), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None

        def ask() -> None:
            assert client.stdin is not None
            client.stdin.write(f"get {url}\n".encode())
            client.stdin.flush()

        ask()
        assert json.loads(client.stdout.readline())["said"] == "hello"
        wait_for(lambda: b"caller" in Path(f"/proc/{client.pid}/cmdline").read_bytes(), "it is the client")
        with striking("network.partition", {}, find_processes(pid=client.pid)[0]) as struck:
            ask()
            wait_for(lambda: struck.counts().get("dropped", 0) >= 2, "it tries, and tries again")
        found = json.loads(client.stdout.readline())
        assert found["said"] == "hello"
        assert found["reused"]


def _asks_redis(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    connection.sendall(b"PING\r\n")
    try:
        return connection.recv(64).startswith(b"+PONG")
    except TimeoutError:
        return False


def test_redis_answers_late_on_a_live_connection_and_on_new_ones(cable: Wire) -> None:
    argv = [
        program("redis-server", "redis-server"),
        "--bind",
        FAR[4],
        "--port",
        "6379",
        "--save",
        "",
        "--protected-mode",
        "no",
    ]
    with running(cable, *argv) as server, ExitStack() as exits:
        connections: list[socket.socket] = []

        def connects() -> bool:
            try:
                connections.append(exits.enter_context(socket.create_connection((FAR[4], 6379), 0.5)))
            except OSError:
                return False
            return True

        wait_for(connects, "Redis listens")
        assert _asks_redis(connections[0], 5)
        with striking(
            "network.partition", {"direction": "egress", "localPorts": [6379]}, find_processes(pid=server.pid)[0]
        ):
            assert not _asks_redis(connections[0], 0.5)
            assert not connects()
        connections[0].settimeout(10)
        assert connections[0].recv(64).startswith(b"+PONG")
        wait_for(connects, "new ones are taken")
        assert _asks_redis(connections[-1], 5)


def test_nginx_loses_packets_of_its_workers_too(cable: Wire, tmp_path: Path) -> None:
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"pid {tmp_path}/pid; error_log /dev/null; worker_processes 2; daemon off; user root;\n"
        f"events {{}} http {{ access_log off; server {{ listen {FAR[4]}:8080; location / {{ return 200 hello; }} }} }}\n"
    )
    argv = [program("nginx", "nginx-light"), "-c", str(configuration), "-p", str(tmp_path), "-e", "/dev/null"]
    with running(cable, *argv) as server:
        fetch = [program("curl", "curl"), "-s", "--max-time", "1", f"http://{FAR[4]}:8080/"]

        def fetched() -> bool:
            return subprocess.run(fetch, capture_output=True, check=False).stdout == b"hello"

        wait_for(fetched, "nginx serves")
        target = find_processes(pid=server.pid)[0]
        with striking("network.partition", {"direction": "ingress", "descendants": True}, target):
            assert not fetched()
        assert fetched()
        with striking("network.loss", {"percent": "20%", "direction": "both", "descendants": True}, target) as struck:
            longer = [*fetch[:3], "20", *fetch[4:]]
            for _ in range(10):
                assert subprocess.run(longer, capture_output=True, check=False).stdout == b"hello"
            wait_for(lambda: struck.counts().get("dropped", 0) >= 1, "some packets were lost")
