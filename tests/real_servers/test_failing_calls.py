"""Servers that no one here wrote meet failing and slow calls, and are well again afterwards."""

from __future__ import annotations

import http.server
import os
import platform
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.faults import parse_fault
from squall.injectors import Plan, Site
from squall.injectors.syscall_patch import SyscallPatchInjector
from squall.kernel import proc
from squall.targets import ProcessIdentity, ProcessTarget, find_processes
from tests import servers
from tests.specimens import needs_root, wait_for
from tests.steps import done

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    needs_root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64"),
]


@contextmanager
def hitting(target: ProcessTarget, type_: str, **parameters: object) -> Iterator[None]:
    """The fault on this process, as it would be planned; undone and looked at on the way out."""
    run = f"test-{os.urandom(4).hex()}"
    plan = SyscallPatchInjector().plan(parse_fault(type_, parameters), target, Site(run, Path("/nowhere"), "0", 7))
    assert isinstance(plan, Plan), plan
    with ExitStack() as stack:
        for action in plan.actions:
            stack.enter_context(done(action))
        yield


class Redis:
    """A client that waits for whole answers."""

    def __init__(self, server: servers.RedisServer) -> None:
        self._link = socket.create_connection((server.host, server.port), timeout=20)

    def ask(self, command: str) -> str:
        """One inline command, one answer."""
        self._link.sendall(command.encode() + b"\r\n")
        data = self._link.recv(65536)
        if data.startswith(b"$") and not data.startswith(b"$-1"):
            length, _, rest = data[1:].partition(b"\r\n")
            while len(rest) < int(length) + 2:
                rest += self._link.recv(65536)
            return rest[: int(length)].decode()
        return data.decode().strip()

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def redis(redis_server: servers.RedisServer) -> Iterator[tuple[Redis, ProcessTarget]]:
    client = Redis(redis_server)
    (target,) = find_processes(port=redis_server.port)
    yield client, target
    client.close()


def test_redis_cannot_save_on_a_full_disk_and_can_again(redis: tuple[Redis, ProcessTarget], tmp_path: Path) -> None:
    client, target = redis
    dump = tmp_path / "redis-server" / "dump.rdb"
    client.ask("SET key value")
    assert client.ask("SAVE") == "+OK"
    before = dump.read_bytes()
    client.ask("SET key other")
    with hitting(target, "io.error", calls=["write"], errno="ENOSPC", paths=[str(dump.parent)]):
        assert client.ask("SAVE").startswith("-ERR")
        assert client.ask("GET key") == "other", "its sockets are not hit"
        assert dump.read_bytes() == before
    assert client.ask("SAVE") == "+OK"
    assert dump.read_bytes() != before


def test_the_child_that_redis_forks_to_save_is_hit_where_it_was_asked_for(redis: tuple[Redis, ProcessTarget]) -> None:
    client, target = redis

    def saved_in_the_background() -> str:
        assert client.ask("BGSAVE").startswith("+Background")
        wait_for(lambda: "rdb_bgsave_in_progress:0" in client.ask("INFO persistence"), "the child has ended")
        info = client.ask("INFO persistence").split()
        return next(line.partition(":")[2] for line in info if line.startswith("rdb_last_bgsave_status:"))

    client.ask("SET key value")
    with hitting(target, "io.error", calls=["sync"], errno="EIO"):
        assert saved_in_the_background() == "ok"
    with hitting(target, "io.error", calls=["sync"], errno="EIO", descendants=True):
        assert saved_in_the_background() == "err"
    assert saved_in_the_background() == "ok"


def test_redis_waits_for_a_slow_disk(redis: tuple[Redis, ProcessTarget]) -> None:
    client, target = redis
    assert client.ask("CONFIG SET appendonly yes") == "+OK"
    assert client.ask("CONFIG SET appendfsync always") == "+OK"
    wait_for(lambda: "aof_rewrite_in_progress:0" in client.ask("INFO persistence"), "its log is there")

    def took() -> float:
        began = time.monotonic()
        assert client.ask("SET key value") == "+OK"
        return time.monotonic() - began

    with hitting(target, "io.delay", calls=["sync"], delay="60ms"):
        assert min(took() for _ in range(3)) >= 0.06
    assert min(took() for _ in range(5)) < 0.06


class Answers(http.server.BaseHTTPRequestHandler):
    """An upstream that answers everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"upstream")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[tuple[str, ProcessTarget]]:
    """An nginx that passes everything on to an upstream: its address, and its worker process."""
    found = servers.program("nginx")
    port = servers.free_port()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        folder = tmp_path / "nginx"
        folder.mkdir()
        temporary = " ".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; user root; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; {temporary}\n"
            f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream.server_port}; }}\n"
            f"location /files/ {{ alias {folder}/files/; }} }} }}\n"
        )
        (folder / "files").mkdir()
        (folder / "files" / "a.txt").write_text("a file\n")
        with subprocess.Popen(
            [found.path, "-p", str(folder), "-c", str(folder / "nginx.conf")], env=found.env, stderr=subprocess.DEVNULL
        ) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                wait_for(lambda: status(url) == 200, "nginx answers")
                (worker,) = proc.children_of(process.pid)
                yield url, ProcessTarget(ProcessIdentity.of(worker), "nginx")
            finally:
                process.terminate()
                process.wait(10)
                upstream.shutdown()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except urllib.error.URLError:
        return 0


def test_nginx_answers_502_when_its_connects_are_refused(nginx: tuple[str, ProcessTarget]) -> None:
    url, worker = nginx
    with hitting(worker, "syscall.error", calls=["connect"], errno="ECONNREFUSED"):
        assert status(url) == 502
    assert status(url) == 200


def test_nginx_cannot_open_the_named_files(nginx: tuple[str, ProcessTarget], tmp_path: Path) -> None:
    url, worker = nginx
    with hitting(worker, "io.error", calls=["open"], errno="EMFILE", paths=[str(tmp_path / "nginx" / "files")]):
        assert status(f"{url}/files/a.txt") >= 500
        assert status(url) == 200
    assert status(f"{url}/files/a.txt") == 200
