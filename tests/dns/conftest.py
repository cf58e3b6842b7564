"""A world with a name server, and programs in cgroups of their own that ask it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import KernelWorker
from squall.faults import parse_fault
from squall.injectors import Plan, Site
from squall.injectors.dns import DnsInjector
from squall.targets import CgroupTarget, Target, find_cgroup
from tests import specimens
from tests.nameserver import NameServer, name_server
from tests.programs.build import SOURCES, go_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.kernel_world import KernelWorld

SERVER = "127.0.0.53"
_SCRIPTS = {"python": "lookup", "bytes": "ask"}
_IN_ITS_PLACE = 'echo $$ > "$1/cgroup.procs" && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'


class Client:
    """A program that looks up names for as long as the test lasts, in a cgroup and with a resolv.conf of its own."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, name: str) -> None:
        """Begin to look up."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()

    def lookup(self, name: str) -> str:
        """The addresses in one line, or what went wrong."""
        self.ask(name)
        return self._line()

    @property
    def target(self) -> CgroupTarget:
        """Its cgroup."""
        return find_cgroup(str(self.folder))


@dataclass
class World:
    """What a test of name faults happens in."""

    kernel: KernelWorld
    server: NameServer
    folder: Path
    exits: ExitStack

    def group(self, name: str) -> Path:
        """A cgroup of the test's own."""
        folder = self.kernel.cgroup / name
        return folder if folder.is_dir() else self.kernel.subgroup(name)

    def run(self, group: str, *argv: str, resolv: str = f"nameserver {SERVER}\n") -> subprocess.Popen[str]:
        """A program in this cgroup, with this resolv.conf."""
        file = self.folder / f"resolv-{os.urandom(3).hex()}"
        file.write_text(resolv)
        place = ["unshare", "--mount", "sh", "-c", _IN_ITS_PLACE, "sh", str(self.group(group)), str(file)]
        process = subprocess.Popen(
            [*place, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.exits.enter_context(process)
        self.exits.callback(process.kill)
        return process

    def client(self, kind: str, group: str = "target", before: Sequence[str] = (), **options: str) -> Client:
        """One that goes on asking: `go` or `python` for names, `bytes` for messages."""
        argv = (
            [str(go_program("lookup"))]
            if kind == "go"
            else [sys.executable, "-u", str(SOURCES / f"{_SCRIPTS[kind]}.py")]
        )
        return Client(self.run(group, *before, *argv, **options), self.group(group))

    def plan(self, target: Target, type_: str, seed: int = 7, **parameters: Any) -> Plan:
        """How this fault would be made real."""
        site = Site("run", self.folder, f"0-{type_}", seed)
        answer = DnsInjector().plan(parse_fault(type_, parameters), target, site)
        assert isinstance(answer, Plan), answer
        return answer

    @contextlib.contextmanager
    def fault(self, target: Target, type_: str, **parameters: Any) -> Iterator[tuple[KernelWorker, list[int]]]:
        """The fault, while this lasts; afterwards everything is looked at. Gives the worker's step and what holds it."""
        actions, held = [], []
        try:
            for action in self.plan(target, type_, **parameters).actions:
                ready = action.prepare()
                actions.append(ready)
                held += list(ready.do())
            worker = actions[-1]
            assert isinstance(worker, KernelWorker)
            yield worker, held
        finally:
            for fd in held:
                os.close(fd)
            for action in reversed(actions):
                action.undo()
                assert action.verify().normal, action.verify().detail


@pytest.fixture
def world(kernel_world: KernelWorld, tmp_path: Path) -> Iterator[World]:
    """A name server at 127.0.0.53 and ::1 that knows shop.test."""
    with ExitStack() as exits:
        server = exits.enter_context(name_server(SERVER, "::1"))
        server.add("shop.test", "10.1.2.3", "fd00::3")
        server.add("other.test", "10.1.2.4")
        yield World(kernel_world, server, tmp_path, exits)


def counted(worker: KernelWorker, name: str, at_least: int) -> bool:
    """Whether the worker has published that many."""
    specimens.wait_for(lambda: worker.counters().get(name, 0) >= at_least, f"{name} is {at_least}")
    return True
