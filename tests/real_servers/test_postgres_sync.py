"""PostgreSQL meets one fsync that fails: it must not trust its disk again, recovers from its log, and loses nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.faults import parse_fault
from squall.injectors import Plan, Site
from squall.injectors.syscall_patch import SyscallPatchInjector
from squall.targets import ProcessIdentity, ProcessTarget
from tests.specimens import NOBODY, needs_root, wait_for
from tests.steps import done

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    needs_root,
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64"),
]
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env")


def program(name: str) -> str:
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.skip(f"needs PostgreSQL's {name}: apt-get install postgresql")
    return found


@dataclass
class Postgres:
    """A server of this test's own, which listens on a socket in its folder only."""

    folder: Path
    process: subprocess.Popen[bytes]

    def store(self, number: int) -> bool:
        """Whether it acknowledges a note."""
        return self.ask(f"INSERT INTO notes VALUES ({int(number)})") is not None  # noqa: S608 - a number

    def ask(self, query: str) -> str | None:
        """What psql prints; None when it fails."""
        argv = [program("psql"), "-h", str(self.folder), "-U", "postgres", "-qAtc", query]
        ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        return ran.stdout.strip() if ran.returncode == 0 else None


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    initdb, server = program("initdb"), program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="squall-test-postgres-", dir="/var/tmp"))
    try:
        os.chown(folder, NOBODY, NOBODY)
        data = folder / "data"
        prepare = [*AS_NOBODY, initdb, "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync", "--no-locale"]
        subprocess.run(prepare, check=True, capture_output=True, timeout=120)
        argv = [*AS_NOBODY, server, "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
        with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
            started = Postgres(folder, process)
            try:
                wait_for(lambda: started.ask("SELECT 1") == "1", "it answers", seconds=60)
                yield started
            finally:
                process.terminate()
                process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def hitting(target: ProcessTarget, **parameters: object) -> Iterator[None]:
    fault = parse_fault("io.error", parameters)
    plan = SyscallPatchInjector().plan(fault, target, Site(f"test-{os.urandom(4).hex()}", Path("/nowhere"), "0", 7))
    assert isinstance(plan, Plan), plan
    with ExitStack() as stack:
        for action in plan.actions:
            stack.enter_context(done(action))
        yield


def test_what_was_acknowledged_is_there_after_a_sync_failed(postgres: Postgres) -> None:
    assert postgres.ask("CREATE TABLE notes (number integer PRIMARY KEY)") is not None
    acknowledged = {number for number in range(10) if postgres.store(number)}
    assert len(acknowledged) == 10
    target = ProcessTarget(ProcessIdentity.of(postgres.process.pid), "postgres")
    log = postgres.folder / "data" / "pg_wal"
    with hitting(target, calls=["sync"], errno="EIO", paths=[str(log)], times=1, descendants=True):
        deadline, failed = time.monotonic() + 60, 0
        for number in range(10, 1000):
            if postgres.store(number):
                acknowledged.add(number)
            else:
                failed += 1
            if (failed and len(acknowledged) > 12) or time.monotonic() > deadline:
                break
    assert failed >= 1
    assert (
        "could not fsync" in (postgres.folder / "log").read_text()
        or "could not fdatasync" in (postgres.folder / "log").read_text()
    )
    wait_for(lambda: postgres.ask("SELECT 1") == "1", "it has recovered", seconds=60)
    rows = postgres.ask("SELECT number FROM notes")
    assert rows is not None
    assert acknowledged <= {int(row) for row in rows.split()}
