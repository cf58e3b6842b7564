"""Real processes, cgroups and mounts for tests to hit, each of which goes away with its test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.kernel import cgroups
from squall.targets import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SOURCE = Path(__file__).resolve().parent.parent / "src"
WAIT_SECONDS_MAX = 15.0
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests with sudo to see this")

_BEAT = """
import os, sys, time
with open(sys.argv[1], "r+b", buffering=0) as file:
    beats = 0
    while True:
        beats += 1
        os.pwrite(file.fileno(), str(beats).encode().ljust(20), 0)
        time.sleep(0.002)
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS_MAX) -> None:
    """Wait until the condition holds; the test fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.005)


@dataclass
class Specimen:
    """A process of a test's own."""

    popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.popen.pid

    @property
    def identity(self) -> ProcessIdentity:
        """Who it is now."""
        return ProcessIdentity.of(self.pid)

    @property
    def state(self) -> str:
        """The letter of its state, "" when it is gone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""


@dataclass
class Beater(Specimen):
    """A process that counts up every few milliseconds in a file, so that a test sees whether it stands still."""

    file: Path

    @property
    def beats(self) -> int:
        """How far it has counted."""
        return int(self.file.read_text() or 0)

    def moves(self, within_s: float = WAIT_SECONDS_MAX) -> bool:
        """Whether it counts on within this time."""
        deadline, before = time.monotonic() + within_s, self.beats
        while self.beats == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


@contextmanager
def started(*argv: str, **popen: object) -> Iterator[Specimen]:
    """A process that runs this program; ended (SIGKILL) and reaped when the test leaves."""
    process = subprocess.Popen(  # type: ignore[call-overload]  # what the caller passes on is Popen's own
        argv, stdin=subprocess.DEVNULL, stdout=popen.pop("stdout", subprocess.DEVNULL), **popen
    )
    try:
        yield Specimen(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def sleeper(seconds: float = 600) -> Iterator[Specimen]:
    """A process that sleeps."""
    with started("sleep", str(seconds)) as specimen:
        wait_for(lambda: b"sleep" in Path(f"/proc/{specimen.pid}/cmdline").read_bytes(), "sleep runs")
        yield specimen


@contextmanager
def beater(folder: Path) -> Iterator[Beater]:
    """A process that counts."""
    file = folder / f"beats-{os.urandom(4).hex()}"
    file.touch()
    with started(sys.executable, "-I", "-S", "-c", _BEAT, str(file)) as specimen:
        found = Beater(specimen.popen, file)
        wait_for(lambda: found.beats > 2, "it counts")
        yield found


@contextmanager
def python(script: str, *arguments: str) -> Iterator[Specimen]:
    """A Python process that runs this code, once it has printed its first line ("ready")."""
    argv = (sys.executable, "-I", "-S", "-u", "-c", script, *arguments)
    with started(*argv, stdout=subprocess.PIPE) as specimen:
        assert specimen.popen.stdout is not None
        assert specimen.popen.stdout.readline() == b"ready\n"
        yield specimen


def elsewhere(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code that imports squall in a bare interpreter, as the guardian does: no site-packages, no environment."""
    prelude = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
    argv = [sys.executable, "-I", "-S", "-c", prelude + script, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env={}, check=False)


@contextmanager
def own_cgroup(controller: str = "") -> Iterator[Path]:
    """A new cgroup with this controller, in v1's hierarchy of it or in v2's ("": v2's, with or without controllers).

    Needs root. Its processes are ended when the test leaves.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root to make a cgroup: run the tests with sudo to see this")
    mount = _mount_with(controller)
    if mount is None:
        pytest.skip(f"this machine has no cgroup hierarchy with {controller or 'v2'}")
    folder = Path(mount) / f"squall-test-{os.getpid()}-{os.urandom(3).hex()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {mount}: {error.strerror}")
    try:
        yield folder
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not (folder / "cgroup.procs").read_text().split(), "the cgroup is empty")
        folder.rmdir()


def _mount_with(controller: str) -> str | None:
    for tree in cgroups.hierarchies():
        if tree.v2 and (
            not controller or controller in (Path(tree.mount) / "cgroup.subtree_control").read_text().split()
        ):
            return tree.mount
        if controller and controller in tree.controllers:
            return tree.mount
    return None


def limit_memory(folder: Path, limit: int) -> None:
    """Give a cgroup a memory limit, in bytes."""
    v1 = folder / "memory.limit_in_bytes"
    (v1 if v1.exists() else folder / "memory.max").write_text(str(limit))


def charged_memory(folder: Path) -> int:
    """How much memory a cgroup uses, in bytes."""
    v1 = folder / "memory.usage_in_bytes"
    return int((v1 if v1.exists() else folder / "memory.current").read_text())


def limit_cpu(folder: Path, share: float) -> None:
    """Give a cgroup a quota: this share of one core in every 100 ms."""
    if (folder / "cpu.max").exists():
        (folder / "cpu.max").write_text(f"{share * 100_000:.0f} 100000")
    else:
        (folder / "cpu.cfs_period_us").write_text("100000")
        (folder / "cpu.cfs_quota_us").write_text(f"{share * 100_000:.0f}")


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own (a tmpfs), mounted for this test; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs: run the tests with sudo to see this")
    folder = Path(tempfile.mkdtemp(prefix="squall-test-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=1777", "squall-test", str(folder)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@cache
def _readable_python() -> str | None:
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        probe = [*_as_nobody(), candidate, "-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if subprocess.run(probe, capture_output=True, check=False, cwd="/").returncode == 0:
                return candidate
    return None


def _as_nobody() -> list[str]:
    """The words before a command that make nobody run it; `env`, since setpriv's own exec still has root's rights."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "env"]


@contextmanager
def unprivileged() -> Iterator[Callable[[str, Sequence[str]], subprocess.CompletedProcess[str]]]:
    """Run code that imports squall as an ordinary user: as `nobody` where the tests run as root, else as they run."""
    interpreter = _readable_python()
    if interpreter is None:
        pytest.skip("no Python >= 3.11 here that user `nobody` may run: install python3 for all users")
    with tempfile.TemporaryDirectory(prefix="squall-test-source-") as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(SOURCE / "squall", Path(folder) / "squall", ignore=shutil.ignore_patterns("__pycache__"))

        def run(script: str, arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
            prelude = f"import sys; sys.path.insert(0, {folder!r})\n"
            argv = [*_as_nobody(), interpreter, "-I", "-S", "-c", prelude + script, *arguments]
            return subprocess.run(
                argv, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]}, cwd="/", check=False
            )

        yield run
