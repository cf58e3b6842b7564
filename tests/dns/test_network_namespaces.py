"""All queries of a network namespace, by rules of its own that nobody else's meet."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import KernelWorker, NftTable
from squall.actions.worker import surviving
from squall.faults import parse_fault
from squall.injectors import Host, Plan, Refusal, Site
from squall.injectors.dns import DnsInjector, DnsRedirectInjector
from squall.kernel import proc
from squall.targets import NetnsTarget, find_netns
from tests import specimens
from tests.dns.conftest import SERVER, Client, counted
from tests.dns.test_passing_on import EDNS, asked, query
from tests.namespaces import named_netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.dns.conftest import World

TRUE = "10.99.99.99"
_SERVER = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.nameserver import name_server
with name_server("{SERVER}", "::1") as server:
    server.add("shop.test", "{TRUE}")
    print("ready", flush=True)
    time.sleep(600)
"""
_FOREIGN = """table inet foreign {
  chain output {
    type nat hook output priority -90
    udp dport 5354 redirect to :9
  }
}
"""


@pytest.fixture
def netns(world: World) -> str:
    """A network namespace with a name server in it."""
    able = DnsRedirectInjector().capable(Host.look())
    if not able.works:
        pytest.skip(f"{able.reason}; Debian's package is nftables")
    name = world.exits.enter_context(named_netns())
    server = world.run("server", *inside(name), sys.executable, "-c", _SERVER)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return name


def inside(name: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{name}"]


def client(world: World, netns: str, kind: str) -> Client:
    return world.client(kind, "target", inside(netns))


def ruleset(netns: str) -> str:
    return subprocess.run([*inside(netns), "nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def fault(
    world: World, target: NetnsTarget, type_: str, **parameters: object
) -> Iterator[tuple[KernelWorker, NftTable]]:
    """The fault, while this lasts."""
    plan = DnsRedirectInjector().plan(
        parse_fault(type_, parameters), target, Site("run", world.folder, f"0-{type_}", 7)
    )
    assert isinstance(plan, Plan)
    worker, table = (action.prepare() for action in plan.actions)
    assert isinstance(worker, KernelWorker)
    assert isinstance(table, NftTable)
    held = list(worker.do())
    try:
        table.do()
        yield worker, table
    finally:
        table.undo()
        for fd in held:
            os.close(fd)
        worker.undo()
        assert worker.verify().normal
        assert table.verify().normal


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["go", "python"])
def test_everybody_in_it_is_hit_and_nobody_else(world: World, netns: str, kind: str) -> None:
    one, outside = client(world, netns, kind), world.client(kind, "neighbour")
    assert one.lookup("shop.test") == TRUE
    with fault(world, find_netns(netns), "dns.error", names=["shop.*"]) as (worker, _):
        assert one.lookup("shop.test") == "no such name"
        assert outside.lookup("shop.test") == "10.1.2.3 fd00::3"
        assert counted(worker, "nxdomain", 1)
    assert one.lookup("shop.test") == TRUE


@pytest.mark.kernel
@pytest.mark.parametrize("server", [SERVER, "::1"])
@pytest.mark.parametrize("how", ["connected", "unconnected", "tcp"])
def test_all_else_passes_to_the_name_server_that_was_asked(world: World, netns: str, how: str, server: str) -> None:
    one, messages = (
        client(world, netns, "bytes"),
        [query("shop.test"), query("missing.test"), query("shop.test", 65432, more=EDNS)],
    )
    direct = [asked(one, how, server, message) for message in messages]
    with fault(world, find_netns(netns), "dns.fixed", names=["hit.test"], addresses=["192.0.2.1"]):
        assert [asked(one, how, server, message) for message in messages] == direct
        ((host, port, answer),) = asked(one, how, server, query("hit.test"))
        assert (host, port) == (server, 53)
        assert answer.endswith(bytes([192, 0, 2, 1]))


@pytest.mark.kernel
def test_an_open_socket_is_led_and_freed_again(world: World, netns: str) -> None:
    """The kernel keeps a redirected flow as it began: on the way back it is forgotten."""
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(('127.0.0.53', 53))\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    s.send(bytes.fromhex(line.strip())); print(s.recv(4096).hex(), flush=True)\n"
    )
    one = Client(world.run("target", *inside(netns), sys.executable, "-u", "-c", script), world.group("target"))
    for _ in range(2):
        assert one.lookup(query("shop.test").hex()).endswith(bytes([10, 99, 99, 99]).hex())
        with fault(world, find_netns(netns), "dns.error", names=["*"], error="refused"):
            assert bytes.fromhex(one.lookup(query("shop.test").hex()))[3] & 15 == 5


@pytest.mark.kernel
def test_others_rules_are_untouched(world: World, netns: str) -> None:
    subprocess.run([*inside(netns), "nft", "-f", "-"], input=_FOREIGN, text=True, check=True)
    before = ruleset(netns)
    assert "foreign" in before
    with fault(world, find_netns(netns), "dns.error", names=["*"]) as (_, table):
        assert f"table inet {table.name}" in ruleset(netns)
        assert not table.verify().normal
    assert ruleset(netns) == before


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_within_a_second_of_the_workers_end_queries_go_direct(world: World, netns: str, end: signal.Signals) -> None:
    one = world.client("go", "target", inside(netns), resolv=f"nameserver {SERVER}\noptions timeout:1 attempts:1\n")
    with fault(world, find_netns(netns), "dns.error", names=["*"]) as (worker, _):
        assert one.lookup("shop.test") == "no such name"
        (stat,) = surviving(worker.token)
        assert proc.send_signal(stat.pid, stat.start_ticks, end)
        specimens.wait_for(lambda: one.lookup("shop.test") == TRUE, "queries go direct", 6)


def test_what_each_mechanism_cannot_do_is_refused(tmp_path: Path) -> None:
    site = Site("run", tmp_path, "0-dns.error", 7)
    with named_netns() as name:
        target, one = find_netns(name), parse_fault("dns.error", {"names": ["*"]})
        assert isinstance(DnsInjector().plan(one, target, site), Refusal)
        plan = DnsRedirectInjector().plan(one, target, site)
        assert isinstance(plan, Plan)
        assert plan.recoverability == "guarded"
