"""Real network namespaces for tests, each of which goes away with its test."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["named_netns", "sleeper_in"]


@contextmanager
def named_netns() -> Iterator[str]:
    """A new network namespace with a name of `ip netns`, its loopback up; removed when the test leaves."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace: run the tests with sudo to see this")
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip`; Debian's package is iproute2")
    name = f"squall-test-{os.getpid()}-{os.urandom(3).hex()}"
    subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def sleeper_in(name: str) -> Iterator[specimens.Specimen]:
    """A process that sleeps in this network namespace."""
    with specimens.started("ip", "netns", "exec", name, "sleep", "600") as specimen:
        specimens.wait_for(lambda: _command(specimen.pid).startswith(b"sleep"), "it sleeps")
        yield specimen


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
