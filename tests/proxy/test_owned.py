"""A data plane that a run owns: it starts at once, belongs to nobody else, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from squall.actions.proxy_control import ProxyControl, ProxyGone


def test_it_drops_its_toxics_at_once_and_drains_when_its_owner_dies(bench: Any, sockets: Any) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo), drain_s=10)
    proxy.control.add_toxic("l", "latency", "upstream", attributes={"latency": 60_000})
    client = proxy.connect()
    client.sendall(b"held")
    bench.until(lambda: proxy.hits("l")["bytes"] == 4, "it is held")
    started = time.monotonic()
    proxy.process.stdin.close()
    assert sockets.receive(client, 4) == b"held"
    assert time.monotonic() - started < 1
    client.sendall(b"still here")
    assert sockets.receive(client, 10) == b"still here"
    with pytest.raises(ConnectionRefusedError):
        proxy.connect()
    client.close()
    assert proxy.process.wait(5) == 0
    assert not Path(proxy.socket_path).exists()


def test_it_does_not_drain_for_ever(bench: Any, sockets: Any) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo), drain_s=1)
    client = proxy.connect()
    client.sendall(b"x")
    sockets.receive(client, 1)
    proxy.process.stdin.close()
    assert proxy.process.wait(5) == 0
    assert sockets.how_it_ends(client) == "end"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(bench: Any, number: int) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo))
    proxy.process.send_signal(number)
    assert proxy.process.wait(5) == 0
    assert not Path(proxy.socket_path).exists()
    with pytest.raises(ProxyGone, match="does not answer"):
        proxy.control.ping()
    proxy.control.shutdown()


def test_its_owner_dying_by_sigkill_ends_it(bench: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    config = json.dumps({"control": path, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"})
    start = f"subprocess.Popen([sys.executable, '-m', 'squall.proxy.owned', {config!r}], stdin=subprocess.PIPE)"
    owner = subprocess.Popen([sys.executable, "-c", f"import subprocess, sys, time; p = {start}; time.sleep(60)"])
    pid = bench.until(lambda: Path(path).exists() and ProxyControl(path).ping(), "it is up")
    owner.kill()
    owner.wait()
    bench.until(
        lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(), "it has ended", 3
    )


def test_a_port_in_use_is_said_with_its_address(bench: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process, said = bench.start({"listen": address, "upstream": "127.0.0.1:1"})
        assert process.wait(5) == 1
    answer = json.loads(said)
    assert answer["error"] == f"listen tcp {address}: bind: address already in use"
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"listen": "127.0.0.1:0"}, "a route needs"),
        ({"listen": "nonsense", "upstream": "a:1"}, "missing port"),
        ({"listen": "127.0.0.1:0", "upstream": "a:1", "options": {"spin": 1}}, "there is no option 'spin'"),
        ({"listen": "127.0.0.1:0", "upstream": "a:1", "options": {"spin_us": "1"}}, "not a whole number"),
        ({"listen": "127.0.0.1:0", "upstream": "a:1", "options": {"engine": "magic"}}, "splice and copy"),
        ({"listen": "127.0.0.1:0", "upstream": "a:1", "options": {"spin_us": 10**9}}, "0 to 1000"),
        ({"listen": "127.0.0.1:0", "upstream": "a:1", "seed": "x"}, "seed"),
        (
            {"listen": "127.0.0.1:0", "upstream": "a:1", "control": "/nowhere/at/all.sock"},
            "cannot bind /nowhere/at/all.sock",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_line(bench: Any, config: dict[str, Any], said: str) -> None:
    config = {"routes": [config]} if "upstream" not in config else config
    process, line = bench.start(config)
    assert process.wait(5) == 1
    assert said in json.loads(line)["error"]
    process.stdin.close()
    process.stdout.close()


def test_several_routes_in_one_process(bench: Any, sockets: Any, tmp_path: Path) -> None:
    upstream = bench.upstream(bench.echo)
    path = str(tmp_path / "c.sock")
    routes = [{"name": name, "listen": "127.0.0.1:0", "upstream": upstream.address} for name in ("a", "b")]
    process, said = bench.start({"control": path, "routes": routes})
    assert said == "ready\n"
    a, b = (ProxyControl(path, proxy=name) for name in ("a", "b"))
    a.add_toxic("r", "reset_peer", "upstream")
    assert (len(a.toxics()), len(b.toxics())) == (1, 0)
    for control, end in ((a, "reset"), (b, "data")):
        port = int(control.stats()["listen"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"x")
            assert sockets.how_it_ends(client) == end
    process.stdin.close()
    assert process.wait(5) == 0
    process.stdout.close()


def test_a_control_socket_may_have_any_path(bench: Any, tmp_path: Path) -> None:
    """The kernel's limit for a socket's path is 107 bytes."""
    folder = tmp_path / ("long" * 40) / ("longer" * 30)
    folder.mkdir(parents=True)
    path = str(folder / "proxy.sock")
    process, said = bench.start({"control": path, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"})
    assert said == "ready\n"
    assert ProxyControl(path).ping() == process.pid
    assert Path(path).stat().st_mode & 0o777 == 0o600
    ProxyControl(path).shutdown()
    assert process.wait(5) == 0
    process.stdin.close()
    process.stdout.close()


def test_a_control_socket_that_a_killed_proxy_left_is_taken_over(bench: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    config = {"control": path, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}
    first, _ = bench.start(config)
    second, said = bench.start(config)
    assert second.wait(5) == 1
    assert path in json.loads(said)["error"]
    first.kill()
    first.wait()
    third, said = bench.start(config)
    assert said == "ready\n"
    assert ProxyControl(path).ping() == third.pid
    for process in (first, second, third):
        process.stdin.close()
        process.stdout.close()
        process.wait(5)


def test_an_owner_must_hold_a_pipe() -> None:
    """With a file as standard input nobody could tell that the owner has died."""
    command = [sys.executable, "-m", "squall.proxy.owned", '{"listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}']
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20)
    assert run.returncode == 1
    assert "a pipe that the owner holds" in json.loads(run.stdout)["error"]


def test_garbage_on_the_control_socket_is_answered(bench: Any) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(proxy.socket_path)
        lines = client.makefile("rb")
        for line in (
            b"garbage\n",
            b"[1]\n",
            b'{"op": "explode"}\n',
            b'{"op": "add_toxic"}\n',
            b"\xff\xfe\n",
            b'{"op": "remove_toxic", "name": 5}\n',
        ):
            client.sendall(line)
            assert json.loads(lines.readline())["ok"] is False
        client.sendall(b'{"op": "ping"}\n{"op": "ping"}\n')
        assert json.loads(lines.readline())["result"]["pid"] == proxy.process.pid
        assert json.loads(lines.readline())["ok"] is True
        lines.close()


def test_it_leaves_no_descriptor_behind(bench: Any, sockets: Any) -> None:
    proxy = bench.proxy(bench.upstream(bench.echo))
    folder = Path(f"/proc/{proxy.process.pid}/fd")

    def use_it() -> int:
        for kind in ("latency", "slicer", "bandwidth"):
            proxy.control.add_toxic(
                kind, kind, "upstream", attributes={"latency": 1, "average_size": 1000, "rate": 100_000}
            )
            with proxy.connect() as client:
                client.sendall(b"x" * 200_000)
                assert len(sockets.receive(client, 200_000)) == 200_000
            proxy.control.remove_toxic(kind)
        proxy.clients.clear()
        bench.until(lambda: proxy.control.stats()["open"] == 0, "connections are closed")
        return len(list(folder.iterdir()))

    use_it()
    first = use_it()
    for _ in range(10):
        use_it()
    bench.until(lambda: len(list(folder.iterdir())) <= first + 4, "only a few pooled pipes are kept")


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"x"])
def test_connections_that_have_ended_take_no_memory(bench: Any, sockets: Any, first: bytes) -> None:
    """Three hundred connections, again and again: the second time costs no more than the first."""
    proxy = bench.proxy(bench.upstream(bench.echo))
    proxy.control.add_toxic("l", "latency", "upstream", attributes={"latency": 1, "jitter": 1})

    def open_and_close() -> int:
        clients = [proxy.connect() for _ in range(300)]
        for client in clients:
            client.sendall(first)
            sockets.receive(client, len(first))
        for client in clients:
            client.close()
        proxy.clients.clear()
        bench.until(lambda: proxy.control.stats()["open"] == 0, "connections are closed")
        return resident_kb(proxy.process.pid)

    open_and_close()
    second = open_and_close()
    assert max(open_and_close() for _ in range(5)) - second < 4_000


def test_it_starts_fast(bench: Any) -> None:
    """It is waited for in every run: 150 ms on a quiet machine, far less than importing what it must not import."""
    times = []
    for _ in range(5):
        started = time.monotonic()
        process, said = bench.start({"listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"})
        times.append(time.monotonic() - started)
        assert said == "ready\n"
        process.stdin.close()
        process.wait(5)
        process.stdout.close()
    assert statistics.median(times) < 1


def test_it_needs_the_standard_library_only() -> None:
    """So that it starts at once, and where nothing else is installed."""
    code = "import sys, squall.proxy.owned; print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    found = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'src')!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(found.stdout.split()) <= {"squall", "__main__"}
