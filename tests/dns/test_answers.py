"""Each kind of answer, as programs that nobody prepared get it; everything else passes."""

from __future__ import annotations

import ipaddress
import signal
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from squall.kernel import proc
from tests import specimens
from tests.dns.conftest import counted

if TYPE_CHECKING:
    from tests.dns.conftest import World

KINDS = ["go", "python"]
TRUE = "10.1.2.3 fd00::3"


@pytest.mark.kernel
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "said"), [("nxdomain", "no such name"), ("servfail", "failed"), ("refused", "failed")]
)
def test_an_error_is_what_the_program_gets_for_the_name_alone(world: World, kind: str, error: str, said: str) -> None:
    client = world.client(kind)
    assert client.lookup("shop.test") == TRUE
    with world.fault(client.target, "dns.error", names=["shop.*"], error=error) as (worker, _):
        assert client.lookup("shop.test") == said
        assert client.lookup("SHOP.test") == said
        assert client.lookup("other.test") == "10.1.2.4"
        assert client.lookup("missing.test") == "no such name"
        assert counted(worker, error, 2)
        assert counted(worker, "missed", 2)
    assert client.lookup("shop.test") == TRUE


@pytest.mark.kernel
@pytest.mark.parametrize("kind", KINDS)
def test_fixed_addresses(world: World, kind: str) -> None:
    client = world.client(kind)
    with world.fault(
        client.target, "dns.fixed", names=["shop.test"], addresses=["192.0.2.7", "192.0.2.8", "2001:db8::7"]
    ):
        assert client.lookup("shop.test") == "192.0.2.7 192.0.2.8 2001:db8::7"
    with world.fault(client.target, "dns.fixed", names=["shop.test"], addresses=["192.0.2.7"]):
        assert client.lookup("shop.test") == "192.0.2.7"
    assert client.lookup("shop.test") == TRUE


@pytest.mark.kernel
def test_random_addresses_belong_to_nobody_and_replay_from_the_seed(world: World) -> None:
    client = world.client("python")
    seen = []
    for seed in (1, 1, 2):
        with world.fault(client.target, "dns.random", names=["*"], seed=seed):
            seen.append([client.lookup("shop.test") for _ in range(5)])
    assert seen[0] == seen[1] != seen[2]
    found = [ipaddress.ip_address(text) for line in seen[0] for text in line.split()]
    assert len(set(found)) == 10
    ranges = [ipaddress.ip_network(text) for text in ("198.18.0.0/15", "2001:db8::/32")]
    assert all(any(one in each for each in ranges) for one in found)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_at_all(world: World, kind: str) -> None:
    client = world.client(kind, resolv="nameserver 127.0.0.53\noptions timeout:1 attempts:2\n")
    with world.fault(client.target, "dns.error", names=["shop.test"], error="timeout") as (worker, _):
        assert client.lookup("shop.test") in ("timed out", "failed")
        assert counted(worker, "timeout", 4)  # two attempts for each kind of address
        assert client.lookup("other.test") == "10.1.2.4"


@pytest.mark.kernel
def test_a_share_of_the_queries(world: World) -> None:
    client = world.client("python", resolv="nameserver 127.0.0.53\noptions no-aaaa\n")
    server_before = len(world.server.asked)
    with world.fault(client.target, "dns.error", names=["shop.test"], percent="30%") as (worker, _):
        for _ in range(200):
            client.lookup("shop.test")
        passed = len(world.server.asked) - server_before
        assert counted(worker, "missed", passed)
        hit = worker.counters()["nxdomain"]
        asked = hit + passed
        assert 0.2 < hit / asked < 0.4
        assert asked in range(200, 401)  # one query a lookup; two where the option is not known


@pytest.mark.kernel
def test_only_the_cgroup_is_hit(world: World) -> None:
    client, neighbour = world.client("go"), world.client("go", "neighbour")
    with world.fault(client.target, "dns.error", names=["*"]) as (worker, _):
        assert neighbour.lookup("shop.test") == TRUE
        assert client.lookup("shop.test") == "no such name"
        assert neighbour.lookup("shop.test") == TRUE
        assert counted(worker, "nxdomain", 1)
        assert worker.counters()["missed"] == 0


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_queries_go_direct_when_the_worker_is_gone_or_stands_still(world: World, end: signal.Signals) -> None:
    client = world.client("go", resolv="nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
    with world.fault(client.target, "dns.error", names=["*"]) as (worker, _):
        assert client.lookup("shop.test") == "no such name"
        (stat,) = surviving(worker.token)
        assert proc.send_signal(stat.pid, stat.start_ticks, end)
        if end == signal.SIGKILL:
            assert proc.wait_gone(stat.pid, stat.start_ticks, 5)
            assert client.lookup("shop.test") == TRUE  # the very next one
            assert not worker.in_force()
        else:
            specimens.wait_for(lambda: client.lookup("shop.test") == TRUE, "queries go direct", 5)


@pytest.mark.kernel
def test_another_rule_without_a_gap(world: World) -> None:
    client = world.client("go")
    with world.fault(client.target, "dns.error", names=["shop.test"]) as (worker, held):
        assert client.lookup("shop.test") == "no such name"
        (new,) = world.plan(client.target, "dns.fixed", names=["*"], addresses=["192.0.2.9"]).actions
        assert worker.become(new, held)
        specimens.wait_for(lambda: client.lookup("other.test") == "192.0.2.9", "the new rule holds")
