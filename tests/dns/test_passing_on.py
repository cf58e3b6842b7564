"""What is not hit passes unharmed: bytes, transports, addresses, whoever asks and however he asks."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.targets import find_processes
from tests import specimens
from tests.dns.conftest import SERVER, Client, counted
from tests.nameserver import AAAA, TXT, A, name_server
from tests.namespaces import named_netns

if TYPE_CHECKING:
    from tests.dns.conftest import World

HIT = {"names": ["hit.test"]}
EDNS = b"\0\0\x29\x10\0\0\0\x80\0\0\x0c\0\x0a\0\x08" + bytes(range(8))
"""An OPT record: 4096 bytes, DNSSEC wanted, with a cookie."""


def query(name: str, type_: int = A, number: int = 0x1234, more: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack(">HHHHHH", number, 0x0120, 1, 0, 0, 1 if more else 0)
    return header + labels + b"\0" + struct.pack(">HH", type_, 1) + more


def asked(client: Client, how: str, server: str, *messages: bytes) -> list[tuple[str, int, bytes]]:
    """Who answered what."""
    client.ask(f"{how} {server} {','.join(one.hex() for one in messages)}")
    words = client._line().split()
    return [(words[at], int(words[at + 1]), bytes.fromhex(words[at + 2])) for at in range(0, len(words), 3)]


@pytest.mark.kernel
@pytest.mark.parametrize("server", [SERVER, "::1", f"::ffff:{SERVER}"])
@pytest.mark.parametrize("how", ["connected", "unconnected", "tcp"])
def test_bytes_and_addresses_are_those_of_the_name_server(world: World, how: str, server: str) -> None:
    client = world.client("bytes")
    messages = {
        "plain": query("shop.test"),
        "mixed case": query("sHoP.TeSt"),
        "edns": query("shop.test", AAAA, more=EDNS),
        "unknown type": query("shop.test", 65432),
        "no such name": query("missing.test"),
    }
    with world.fault(client.target, "dns.error", **HIT) as (worker, _):
        for message in messages.values():
            ((host, port, answer),) = asked(client, how, server, message)
            assert (host, port) == (server, 53)
            assert world.server.asked[-1].message == message
            assert world.server.asked[-1].transport == ("tcp" if how == "tcp" else "udp")
            assert answer == world.server.answered[-1]
        assert counted(worker, "missed", len(messages))
        ((host, port, answer),) = asked(client, how, server, query("hIt.test", number=77, more=EDNS))
        assert (host, port) == (server, 53)
        number, flags, questions, answers, _, more = struct.unpack_from(">HHHHHH", answer)
        assert (number, flags & 0x800F, questions, answers, more) == (77, 0x8003, 1, 0, 1)
        assert answer[12:].startswith(b"\x03hIt\x04test\0\0\x01\0\x01")
        assert answer.endswith(b"\0\0\x29\x04\xd0\0\0\x80\0\0\0")


@pytest.mark.kernel
@pytest.mark.parametrize("how", ["connected", "tcp"])
def test_many_at_once_are_not_mixed_up(world: World, how: str) -> None:
    client = world.client("bytes")
    messages = [query("hit.test" if number % 3 == 0 else "shop.test", number=1000 + number) for number in range(60)]
    with world.fault(client.target, "dns.error", **HIT):
        answers = [answer for _, _, answer in asked(client, how, SERVER, *messages)]
    found = {number: flags & 15 for number, flags in (struct.unpack_from(">HH", answer) for answer in answers)}
    assert found == {1000 + number: 3 if number % 3 == 0 else 0 for number in range(60)}


@pytest.mark.kernel
def test_what_is_no_query_is_passed_on(world: World) -> None:
    """A name server's business is its own: even nonsense reaches it."""
    client = world.client("bytes")
    two_questions = struct.pack(">HHHHHH", 9, 0x0100, 2, 0, 0, 0) + query("hit.test")[12:] * 2
    with world.fault(client.target, "dns.error", names=["*"]):
        asked(client, "connected", SERVER, two_questions)
    assert world.server.asked[-1].message == two_questions


@pytest.mark.kernel
def test_large_answers_come_by_tcp(world: World) -> None:
    """The name server cuts what does not fit, and the program asks again by TCP: the C library does so by itself."""
    addresses = [f"10.7.{number // 250}.{number % 250 + 1}" for number in range(300)]
    world.server.add("large.test", *addresses)
    world.server.records["text.test", TXT] = [b"\xff" + bytes(255)] * 8
    client = world.client("python")
    assert client.lookup("large.test").split() == sorted(addresses)
    direct = [(one.transport, one.type) for one in world.server.asked]
    assert ("tcp", A) in direct
    world.server.asked.clear()
    with world.fault(client.target, "dns.error", **HIT):
        assert client.lookup("large.test").split() == sorted(addresses)
    assert sorted((one.transport, one.type) for one in world.server.asked) == sorted(direct)
    with world.fault((raw := world.client("bytes")).target, "dns.error", **HIT):
        ((_, _, cut),) = asked(raw, "connected", SERVER, query("text.test", TXT))
        assert cut[2] & 0x02
        ((_, _, whole),) = asked(raw, "tcp", SERVER, query("text.test", TXT))
        assert whole.count(b"\xff" + bytes(255)) == 8


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["go", "python"])
def test_search_domains_and_several_name_servers(world: World, kind: str) -> None:
    with name_server("127.0.0.54") as second:
        second.add("db.one.test", "10.2.2.2")
        world.server.add("db.two.test", "10.1.1.1")
        resolv = f"nameserver {SERVER}\nnameserver 127.0.0.54\nsearch one.test two.test\n"
        client = world.client(kind, resolv=resolv)
        with world.fault(client.target, "dns.error", names=["db.one.*"]):
            assert client.lookup("db") == "10.1.1.1"
            assert "db.one.test" not in world.server.names_asked() + second.names_asked()
        with world.fault(client.target, "dns.error", names=["db.two.test"], error="nxdomain"):
            assert client.lookup("db") == "no such name"


@pytest.mark.kernel
def test_the_next_name_server_is_asked_where_one_is_closed(world: World) -> None:
    client = world.client("go", resolv=f"nameserver 127.0.0.99\nnameserver {SERVER}\n")
    with world.fault(client.target, "dns.error", **HIT):
        assert client.lookup("shop.test") == "10.1.2.3 fd00::3"
        assert client.lookup("hit.test") == "no such name"


@pytest.mark.kernel
def test_answers_that_are_on_their_way_still_arrive_when_the_fault_ends(world: World) -> None:
    client = world.client("bytes")
    with world.fault(client.target, "dns.error", **HIT) as (worker, _):
        world.server.late_s = 0.3
        client.ask(f"connected {SERVER} {query('shop.test').hex()}")
        specimens.wait_for(lambda: world.server.asked, "the name server was asked")
    assert worker.verify().normal
    began = time.monotonic()
    assert client._line().startswith(f"{SERVER} 53 ")
    assert time.monotonic() - began < 1


@pytest.mark.kernel
def test_more_name_servers_than_can_be_told_apart_are_asked_directly(world: World) -> None:
    hosts = [f"127.0.1.{number}" for number in range(1, 19)]
    client = world.client("bytes")
    with name_server(*hosts) as many, world.fault(client.target, "dns.error", names=["*"]) as (worker, _):
        answers = [asked(client, "connected", host, query("shop.test"))[0] for host in hosts]
        assert [host for host, _, _ in answers] == hosts
        assert len(many.asked) == 2
        assert counted(worker, "crowded", 2)


@pytest.mark.kernel
def test_ports_that_are_not_dns_are_left_alone(world: World) -> None:
    """A service of the same cgroup is reached as before, and its address is its own."""
    script = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print(s.getpeername()[1])"
    )
    client = world.client("go")
    with socket.create_server(("127.0.0.1", 0)) as service, world.fault(client.target, "dns.error", names=["*"]):
        port = service.getsockname()[1]
        done = world.run("target", sys.executable, "-c", script, str(port))
        assert done.communicate(timeout=20)[0] == f"{port}\n"


@pytest.mark.kernel
def test_curl_goes_where_the_answer_says(world: World) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl: apt-get install curl")
    client = world.client("go")
    with world.fault(client.target, "dns.fixed", names=["shop.test"], addresses=["127.0.0.1"]):
        done = world.run("target", curl, "-sv", "--max-time", "3", "http://shop.test:1/")
        assert re.search(r"127\.0\.0\.1", done.communicate(timeout=20)[1])
    with world.fault(client.target, "dns.error", names=["shop.test"]):
        done = world.run("target", curl, "-s", "--max-time", "3", "http://shop.test:1/")
        done.communicate(timeout=20)
        assert done.returncode == 6  # could not resolve host


@pytest.mark.kernel
def test_a_process_in_another_network_namespace_asks_from_there(world: World) -> None:
    """The cgroup is one, its processes are in two network namespaces: each has a name server of its own."""
    client = world.client("go")
    with named_netns() as name:
        there = ["ip", "netns", "exec", name]
        inner = subprocess.Popen([*there, sys.executable, "-c", _INNER_SERVER], stdout=subprocess.PIPE, text=True)
        world.exits.enter_context(inner)
        world.exits.callback(inner.kill)
        assert inner.stdout is not None
        assert inner.stdout.readline() == "ready\n"
        away = world.client("go", before=["nsenter", f"--net=/run/netns/{name}"])
        with world.fault(client.target, "dns.error", **HIT):
            assert client.lookup("shop.test") == "10.1.2.3 fd00::3"
            assert away.lookup("shop.test") == "10.99.99.99"
            assert away.lookup("hit.test") == "no such name"


_INNER_SERVER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.nameserver import name_server
with name_server("127.0.0.53") as server:
    server.add("shop.test", "10.99.99.99")
    print("ready", flush=True)
    import time
    time.sleep(600)
"""


@pytest.mark.kernel
def test_one_process_of_a_cgroup(world: World) -> None:
    """It is moved into a cgroup of its own for the time, its neighbours are not hit, and it goes back."""
    client, neighbour = world.client("go"), world.client("python")
    (target,) = find_processes(pid=client.process.pid)
    home = Path(f"/proc/{client.process.pid}/cgroup").read_text()
    with world.fault(target, "dns.error", names=["*"]):
        assert client.lookup("shop.test") == "no such name"
        assert neighbour.lookup("shop.test") == "10.1.2.3 fd00::3"
        assert Path(f"/proc/{client.process.pid}/cgroup").read_text() != home
    assert Path(f"/proc/{client.process.pid}/cgroup").read_text() == home
    assert client.lookup("shop.test") == "10.1.2.3 fd00::3"
