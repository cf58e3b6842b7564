"""A real PostgreSQL of the tests' own, which listens on a socket in its folder only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.servers import CACHED
from tests.specimens import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Database:
    """Where it is, and who is connected to it."""

    folder: Path

    @property
    def conninfo(self) -> str:
        """For psycopg."""
        return f"host={self.folder} user=postgres dbname=postgres"

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def connections(self, name: str) -> int:
        """How many connections of this application name there are, as the server sees it."""
        with psycopg.connect(self.conninfo) as asking:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            row = asking.execute(query, (name,)).fetchone()
            return int(row[0]) if row else 0


def program(name: str) -> tuple[str, dict[str, str]]:
    """A program of PostgreSQL, and the environment that it runs in."""
    if found := shutil.which(name):
        return found, dict(os.environ)
    for root in (Path("/"), CACHED):
        for path in sorted(root.glob(f"usr/lib/postgresql/*/bin/{name}")):
            libraries = os.pathsep.join(str(each) for each in root.glob("usr/lib/*-linux-gnu"))
            return str(path), {**os.environ, **({"LD_LIBRARY_PATH": libraries} if root != Path("/") else {})}
    pytest.skip(
        f"{name} is not here: run tools/debian-cache tests (no root needed), or: sudo apt-get install postgresql"
    )


@contextmanager
def postgres() -> Iterator[Database]:
    """Start one; as nobody where the tests run as root, whom it refuses to serve."""
    (initdb, env), (server, _) = program("initdb"), program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="squall-pool-", dir="/var/tmp"))
    become: list[str] = []
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env"]
    try:
        data = str(folder / "data")
        prepare = [
            *become,
            initdb,
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "--no-locale",
            "-E",
            "UTF8",
        ]
        subprocess.run(prepare, check=True, capture_output=True, timeout=120, env=env, cwd=folder)
        options = [
            "-D",
            data,
            "-k",
            str(folder),
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=60",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*become, server, *options], env=env, cwd=folder, stdout=log, stderr=log)
        try:
            _wait(Database(folder), process)
            yield Database(folder)
        finally:
            process.send_signal(signal.SIGINT)  # the server's fast way down: it waits for no client
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(database: Database, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None:
        try:
            database.connections("")
        except psycopg.OperationalError:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"PostgreSQL did not start:\n{(database.folder / 'log').read_text()[-2000:]}")
