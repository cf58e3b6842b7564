"""Real servers for tests: Debian's own programs, started on a free loopback port in a folder that goes away.

A program is taken from PATH, else from the private cache that `tools/debian-cache tests` fills. What is missing skips
the test and says how to get it; where CI=true it fails the test, unless `IMPOSSIBLE_IN_CI` says why it cannot be had.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
CACHED = ROOT / ".cache" / "debian" / "tests" / "root"

HOW_TO_GET = {
    "prometheus": "run tools/debian-cache tests (no root needed), or: sudo apt-get install prometheus",
    "redis-server": "run tools/debian-cache tests (no root needed), or: sudo apt-get install redis-server",
    "chromium": "sudo apt-get install chromium (CI does it by SQUALL_APT=1)",
    "strace": "sudo apt-get install strace",
    "gdb": "sudo apt-get install gdb",
}
IMPOSSIBLE_IN_CI: dict[str, str] = {}
"""Program: why a CI machine cannot have it. Everything else that is missing there is a failure."""

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10


@dataclass(frozen=True)
class Program:
    """A program of this machine or of the cache, with the environment that it needs to run."""

    path: str
    env: dict[str, str] = field(repr=False)


def program(name: str) -> Program:
    """Find a program; a test that needs one which is missing ends here, saying how to get it."""
    cached_path = os.pathsep.join(str(CACHED / folder) for folder in ("usr/bin", "usr/sbin", "bin"))
    if found := shutil.which(name):
        return Program(found, dict(os.environ))
    if found := shutil.which(name, path=cached_path):
        libraries = [
            str(folder) for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*") for folder in CACHED.glob(pattern)
        ]
        return Program(found, {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)})
    missing = f"{name} is not here: {HOW_TO_GET.get(name, f'sudo apt-get install {name}')}"
    if os.environ.get("CI") == "true" and name not in IMPOSSIBLE_IN_CI:
        pytest.fail(missing)
    pytest.skip(IMPOSSIBLE_IN_CI.get(name, missing) if os.environ.get("CI") == "true" else missing)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago; whoever uses it must cope with losing the race."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Callable[[int], list[str]], env: dict[str, str], folder: Path, answers: Callable[[int], bool]
) -> Iterator[int]:
    """Start `command(port)`, wait until it answers, yield the port, and end it whatever happens.

    A lost race for the port (the process ends early) is tried again, three times in all.
    """
    log = folder / "server.log"
    for attempt in range(3):
        port = free_port()
        with log.open("wb") as output:
            server = subprocess.Popen(
                command(port), env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            if _wait_until(lambda: listens(server.pid, port) and answers(port), server):  # noqa: B023 - called before the next turn
                yield port
                return
            if server.poll() is None or attempt == 2:
                pytest.fail(
                    f"{command(port)[0]} did not answer within {START_SECONDS_MAX} s:\n{log.read_text()[-2000:]}"
                )
        finally:
            _end(server)


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port: an answer alone might come from somebody else's server."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:  # 0A: listening
                inodes.add(f"socket:[{columns[9]}]")
    try:
        return any(str(link.readlink()) in inodes for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended, or closed one while we looked
        return False


def _wait_until(answers: Callable[[], bool], server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS_MAX
    while server.poll() is None and time.monotonic() < deadline:
        if answers():
            return True
        time.sleep(0.02)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@dataclass(frozen=True)
class RedisServer:
    """A Redis that keeps nothing on disk."""

    host: str
    port: int


@contextmanager
def redis(folder: Path) -> Iterator[RedisServer]:
    """A real redis-server, empty."""
    found = program("redis-server")

    def command(port: int) -> list[str]:
        return [
            found.path,
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(folder),
        ]

    def answers(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return False

    with running(command, found.env, folder, answers) as port:
        yield RedisServer("127.0.0.1", port)


@dataclass(frozen=True)
class PrometheusServer:
    """A Prometheus that scrapes itself, and whatever `scrape` names, once a second."""

    url: str
    targets: Path

    def scrape(self, job: str, address: str) -> None:
        """Scrape http://ADDRESS/metrics too; it is taken up within about a second."""
        listed = [*json.loads(self.targets.read_text()), {"targets": [address], "labels": {"job": job}}]
        fresh = self.targets.with_suffix(".new")
        fresh.write_text(json.dumps(listed))
        fresh.replace(self.targets)

    def rest(self) -> None:
        """Scrape nobody any more: the port of who has ended is another test's server sooner or later."""
        fresh = self.targets.with_suffix(".new")
        fresh.write_text("[]")
        fresh.replace(self.targets)

    def query(self, promql: str) -> list[dict[str, object]]:
        """The result of an instant query; raise OSError when Prometheus refuses it."""
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            result: list[dict[str, object]] = json.load(answer)["data"]["result"]
            return result


@contextmanager
def prometheus(folder: Path) -> Iterator[PrometheusServer]:
    """A real Prometheus with an empty store."""
    found = program("prometheus")
    targets = folder / "targets.json"
    targets.write_text("[]")
    settings = folder / "prometheus.yml"

    def command(port: int) -> list[str]:
        jobs = [
            {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
            {"job_name": "others", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]},
        ]
        settings.write_text(
            json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs})
        )
        listen = f"127.0.0.1:{port}"
        return [
            found.path,
            f"--config.file={settings}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={listen}",
            "--enable-feature=exemplar-storage",
        ]

    def answers(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    with running(command, found.env, folder, answers) as port:
        yield PrometheusServer(f"http://127.0.0.1:{port}", targets)
