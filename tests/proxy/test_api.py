"""Toxiproxy's HTTP API: statuses, bodies and defaults as toxiproxy 2.12 was seen to give them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

RUN = """
import sys
from squall.proxy import serve
serve("127.0.0.1", 0, sys.argv[1] or None, ready=lambda host, port: print(port, flush=True))
"""


class Server:
    """A running `squall proxy`."""

    def __init__(self, config: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, self.process.stderr and self.process.stderr.read()
        self.port = int(said)

    def raw(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read().decode()
        connection.close()
        return answer

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        status, _, text = self.raw(
            method, path, b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        return status, text

    def proxy(self, name: str = "p", upstream: str = "127.0.0.1:1") -> int:
        status, text = self.ask("POST", "/proxies", {"name": name, "listen": "127.0.0.1:0", "upstream": upstream})
        assert status == 201, text
        return int(json.loads(text)["listen"].rpartition(":")[2])

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def close(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        return status


@pytest.fixture
def server() -> Any:
    server = Server()
    yield server
    assert server.close() in (0, -9)


def error(text: str, status: int) -> tuple[int, str]:
    return status, json.dumps({"error": text, "status": status}, separators=(",", ":")) + "\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "EOF"),
        (b"{", "unexpected EOF"),
        (b"tru", "unexpected EOF"),
        (b"{nope", "invalid character 'n' looking for beginning of object key string"),
        (b"nope", "invalid character 'o' in literal null (expecting 'u')"),
        (b'{"name" 5}', "invalid character '5' after object key"),
        (b'{"name":"a" 5}', "invalid character '5' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"name":"a",}', "invalid character '}' looking for beginning of object key string"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"name":"a\x01"}', r"invalid character '\x01' in string literal"),
        (b"[]", "json: cannot unmarshal array into Go value of type toxiproxy.Proxy"),
        (b'"x"', "json: cannot unmarshal string into Go value of type toxiproxy.Proxy"),
        (b'{"name":5}', "json: cannot unmarshal number into Go struct field Proxy.name of type string"),
        (
            b'{"name":"a","enabled":"x"}',
            "json: cannot unmarshal string into Go struct field Proxy.enabled of type bool",
        ),
    ],
)
def test_a_bad_body_is_complained_of_as_go_does(server: Server, body: bytes, said: str) -> None:
    assert server.ask("POST", "/proxies", body) == error(f"bad request body: {said}", 400)


def test_proxies_are_made_shown_changed_and_deleted(server: Server) -> None:
    assert server.raw("GET", "/proxies")[1]["Content-Type"] == "application/json"
    assert server.ask("GET", "/proxies") == (200, "{}")
    port = server.proxy()
    shown = (
        f'{{"name":"p","listen":"127.0.0.1:{port}","upstream":"127.0.0.1:1","enabled":true,"Logger":{{}},"toxics":[]}}'
    )
    assert server.ask("GET", "/proxies/p") == (200, shown)
    assert server.ask("GET", "/proxies?x=1") == (200, f'{{"p":{shown}}}')
    assert server.ask("POST", "/proxies", {"name": "p", "listen": "127.0.0.1:0", "upstream": "x:1"}) == error(
        "proxy already exists", 409
    )
    assert server.ask("POST", "/proxies", {}) == error("missing required field: name", 400)
    assert server.ask("POST", "/proxies", b"null") == error("missing required field: name", 400)
    assert server.ask("POST", "/proxies", {"name": "z"}) == error("missing required field: upstream", 400)
    for listen, said in (
        (f"127.0.0.1:{port}", f"listen tcp 127.0.0.1:{port}: bind: address already in use"),
        ("nonsense", "listen tcp: address nonsense: missing port in address"),
        ("127.0.0.1:99999", "listen tcp: address 99999: invalid port"),
        ("a:b:c", "listen tcp: address a:b:c: too many colons in address"),
        ("192.0.2.1:80", "listen tcp 192.0.2.1:80: bind: cannot assign requested address"),
    ):
        assert server.ask("POST", "/proxies", {"name": "q", "listen": listen, "upstream": "u:1"}) == error(said, 500)
    assert server.ask("GET", "/proxies/q") == error("proxy not found", 404)
    status, text = server.ask("POST", "/proxies/p", {"name": "renamed", "enabled": False})
    assert (status, json.loads(text)["enabled"], json.loads(text)["name"]) == (200, False, "p")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    status, text = server.ask("PATCH", "/proxies/p", {"enabled": True, "upstream": "127.0.0.1:2"})
    assert (status, json.loads(text)["listen"], json.loads(text)["upstream"]) == (
        200,
        f"127.0.0.1:{port}",
        "127.0.0.1:2",
    )
    assert server.ask("PATCH", "/proxies/p", {"listen": "nonsense"}) == error(
        "address nonsense: missing port in address", 500
    )
    assert server.ask("POST", "/proxies/none", {}) == error("proxy not found", 404)
    assert server.ask("DELETE", "/proxies/p") == (204, "")
    assert server.ask("DELETE", "/proxies/p") == error("proxy not found", 404)


def test_names_of_fields_have_any_case_and_what_follows_is_ignored(server: Server) -> None:
    status, text = server.ask("POST", "/proxies", b'{"Name":"case","UPSTREAM":"x:1","listen":"127.0.0.1:0"}{trailing')
    assert (status, json.loads(text)["name"]) == (201, "case")


@pytest.mark.parametrize(
    ("listen", "shown"),
    [(":0", r"\[::\]:\d+"), ("[::1]:0", r"\[::1\]:\d+"), ("localhost:0", r"127\.0\.0\.1:\d+"), (None, r"\[::\]:\d+")],
)
def test_listen_addresses(server: Server, listen: str | None, shown: str) -> None:
    status, text = server.ask(
        "POST", "/proxies", {"name": "p", "upstream": "u:1", **({"listen": listen} if listen else {})}
    )
    assert status == 201
    assert re.fullmatch(shown, json.loads(text)["listen"])


def test_toxics_are_made_shown_changed_and_deleted(server: Server) -> None:
    server.proxy()
    url = "/proxies/p/toxics"
    shown = '{"attributes":{"latency":5,"jitter":0},"name":"latency_downstream","type":"latency","stream":"downstream","toxicity":1}'
    assert server.ask("GET", url) == (200, "[]")
    assert server.ask("POST", url, {"type": "latency", "attributes": {"latency": 5, "unknown": 1}}) == (200, shown)
    assert server.ask("GET", url) == (200, f"[{shown}]")
    assert server.ask("GET", url + "/latency_downstream") == (200, shown)
    assert server.ask("POST", url, {"type": "latency"}) == error("toxic already exists", 409)
    assert server.ask("POST", url, {"name": "latency_downstream", "type": "slicer", "stream": "upstream"}) == error(
        "toxic already exists", 409
    )
    status, text = server.ask(
        "POST",
        url,
        {"type": "slicer", "stream": "Upstream", "name": "u", "toxicity": 2, "attributes": {"Average_Size": 3}},
    )
    assert (
        text
        == '{"attributes":{"average_size":3,"size_variation":0,"delay":0},"name":"u","type":"slicer","stream":"Upstream","toxicity":2}'
    )
    assert [toxic["name"] for toxic in json.loads(server.ask("GET", url)[1])] == ["u", "latency_downstream"]
    for method in ("POST", "PATCH"):
        status, text = server.ask(
            method,
            url + "/latency_downstream",
            {"attributes": {"jitter": 3}, "toxicity": 0.25, "name": "n", "type": "x"},
        )
        assert (status, text) == (
            200,
            shown.replace('"jitter":0', '"jitter":3').replace('"toxicity":1', '"toxicity":0.25'),
        )
    assert server.ask("POST", url + "/none", {}) == error("toxic not found", 404)
    assert server.ask("GET", url + "/none") == error("toxic not found", 404)
    assert server.ask("DELETE", url + "/none") == error("toxic not found", 404)
    assert server.ask("DELETE", url + "/u") == (204, "")
    assert server.ask("GET", "/proxies/none/toxics") == error("proxy not found", 404)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"type":"bogus"}', "invalid toxic type"),
        (b'{"type":"latency","stream":"sideways"}', "stream was invalid, can be either upstream or downstream"),
        (
            b'{"type":5}',
            "bad request body: json: cannot unmarshal number into Go struct field ToxicWrapper.type of type string",
        ),
        (
            b'{"type":"latency","toxicity":"x"}',
            "bad request body: json: cannot unmarshal string into Go struct field ToxicWrapper.toxicity of type float32",
        ),
        (
            b'{"type":"latency","attributes":5}',
            "bad request body: json: cannot unmarshal number into Go struct field ToxicWrapper.attributes of type toxics.NoopToxic",
        ),
        (
            b'{"type":"latency","attributes":{"latency":"x"}}',
            "bad request body: json: cannot unmarshal string into Go struct field LatencyToxic.attributes.latency of type int64",
        ),
        (
            b'{"type":"latency","attributes":{"latency":1.5}}',
            "bad request body: json: cannot unmarshal number 1.5 into Go struct field LatencyToxic.attributes.latency of type int64",
        ),
        (
            b'{"type":"bandwidth","attributes":{"rate":1e3}}',
            "bad request body: json: cannot unmarshal number 1e3 into Go struct field BandwidthToxic.attributes.rate of type int64",
        ),
        (
            b'{"type":"slicer","attributes":{"delay":"x"}}',
            "bad request body: json: cannot unmarshal string into Go struct field SlicerToxic.attributes.delay of type int",
        ),
        (b"[]", "bad request body: json: cannot unmarshal array into Go value of type toxics.ToxicWrapper"),
        (b"", "bad request body: EOF"),
    ],
)
def test_a_wrong_toxic_is_refused(server: Server, body: bytes, said: str) -> None:
    server.proxy()
    assert server.ask("POST", "/proxies/p/toxics", body) == error(said, 400)
    assert server.ask("GET", "/proxies/p/toxics") == (200, "[]")


def test_populate_makes_replaces_and_keeps(server: Server) -> None:
    port = server.proxy("keep", "127.0.0.1:7")
    server.ask("POST", "/proxies/keep/toxics", {"type": "latency"})
    status, text = server.ask("POST", "/populate", [
        {"name": "keep", "listen": f"127.0.0.1:{port}", "upstream": "127.0.0.1:7"},
        {"name": "new", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:7", "enabled": False},
    ])  # fmt: skip
    assert status == 201
    keep, new = json.loads(text)["proxies"]
    assert len(keep["toxics"]) == 1
    assert (new["enabled"], new["listen"]) == (False, "127.0.0.1:0")
    assert server.ask("POST", "/populate", []) == (201, '{"proxies":null}')
    assert server.ask("POST", "/populate", [{"name": "a"}]) == (
        400,
        '{"error":"missing required field: upstream at proxy 1","status":400,"proxies":null}',
    )
    assert server.ask("POST", "/populate", b"")[1] == '{"error":"bad request body: EOF","status":400,"proxies":null}'
    status, text = server.ask(
        "POST",
        "/populate",
        [
            {"name": "a", "listen": "127.0.0.1:0", "upstream": "u:1"},
            {"name": "b", "listen": f"127.0.0.1:{port}", "upstream": "u:1"},
        ],
    )
    assert status == 500
    assert [proxy["name"] for proxy in json.loads(text)["proxies"]] == ["a"]


def test_reset_enables_everything_and_takes_all_toxics(server: Server) -> None:
    server.proxy()
    server.ask("POST", "/proxies/p/toxics", {"type": "latency"})
    server.ask("POST", "/proxies/p", {"enabled": False})
    assert server.ask("POST", "/reset") == (204, "")
    proxy = json.loads(server.ask("GET", "/proxies/p")[1])
    assert (proxy["enabled"], proxy["toxics"]) == (True, [])


def test_the_rest_of_the_routes(server: Server) -> None:
    assert server.ask("GET", "/version") == (200, '{"version": "2.12.0"}\n')
    for path in ("/nope", "/proxies/", "/proxies/a/b"):
        status, headers, text = server.raw("GET", path)
        assert (status, text, headers["Content-Type"]) == (404, "404 page not found\n", "text/plain; charset=utf-8")
    for method, path in (
        ("PUT", "/proxies"),
        ("GET", "/reset"),
        ("POST", "/version"),
        ("OPTIONS", "/proxies"),
        ("HEAD", "/version"),
    ):
        assert server.ask(method, path) == (405, "")
    status, _, text = server.raw("GET", "/proxies", headers={"User-Agent": "Mozilla/5.0 (X11)"})
    assert (status, text) == (403, "User agent not allowed\n")
    assert server.raw("POST", "/proxies", headers={"Content-Length": "99999999999"})[0] == 413


def test_metrics_and_hits_count_what_passes(server: Server, bench: Any, sockets: Any) -> None:
    port = server.proxy(upstream=bench.upstream(bench.echo).address)
    server.ask("POST", "/proxies/p/toxics", {"type": "slicer", "attributes": {"average_size": 2}})
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"hello")
        assert sockets.receive(client, 5) == b"hello"
        status, headers, text = server.raw("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    labels = f'direction="upstream",listener="127.0.0.1:{port}",proxy="p",upstream='
    for name in ("received", "sent"):
        assert re.search(rf"^toxiproxy_proxy_{name}_bytes_total\{{{re.escape(labels)}[^}}]*\}} 5$", text, re.MULTILINE)
    stats = json.loads(server.ask("GET", "/proxies/p/hits")[1])
    assert stats["connections"] == 1
    assert stats["hits"]["slicer_downstream"]["bytes"] == 5


def test_the_python_client_works_unchanged(server: Server, bench: Any, sockets: Any) -> None:
    toxiproxy = pytest.importorskip("toxiproxy", reason="pip install toxiproxy-python")
    client = toxiproxy.Toxiproxy()
    client.update_api_consumer("127.0.0.1", server.port)
    assert client.running()
    proxy = client.create(name="orders", upstream=bench.upstream(bench.echo).address)
    with pytest.raises(toxiproxy.exceptions.ProxyExists):
        client.create(name="orders", upstream="127.0.0.1:1")
    proxy.add_toxic(type="limit_data", stream="upstream", attributes={"bytes": 3})
    assert proxy.get_toxic("limit_data_upstream").attributes == {"bytes": 3}
    with pytest.raises(toxiproxy.exceptions.InvalidToxic):
        proxy.add_toxic(type="gremlins")
    host, _, port = proxy.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"hello")
        assert sockets.receive(connection, 5) in (b"hel", b"")
    assert proxy.destroy_toxic("limit_data_upstream")
    with proxy.down(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    assert client.reset()
    assert set(client.proxies()) == {"orders"}
    client.populate([{"name": "two", "upstream": "127.0.0.1:1", "listen": "127.0.0.1:0"}])
    client.destroy_all()
    assert client.proxies() == {}


def test_a_config_file_is_populated_before_the_api_answers(bench: Any, sockets: Any, tmp_path: Path) -> None:
    upstream = bench.upstream(bench.echo)
    path = tmp_path / "toxiproxy.json"
    path.write_text(
        json.dumps([{"name": "web", "listen": "127.0.0.1:0", "upstream": upstream.address, "enabled": True}])
    )
    server = Server(str(path))
    listen = json.loads(server.ask("GET", "/proxies/web")[1])["listen"]
    with socket.create_connection(("127.0.0.1", int(listen.rpartition(":")[2])), timeout=10) as client:
        client.sendall(b"x")
        assert sockets.receive(client, 1) == b"x"
    assert server.close() == 0


@pytest.mark.parametrize(
    "content", ["{", "{}", '[{"name": "a"}]', '[{"name": "a", "upstream": "u:1", "listen": "nonsense"}]', None]
)
def test_a_wrong_config_file_is_refused_by_its_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "toxiproxy.json"
    if content is not None:
        path.write_text(content)
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(path)], capture_output=True, text=True, check=False, timeout=20
    )
    assert "InputError" in run.stderr
    assert str(path) in run.stderr


# No orphan


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_data_plane_ends_with_its_api(bench: Any, sockets: Any, number: int) -> None:
    server = Server()
    port = server.proxy(upstream=bench.upstream(bench.echo).address)
    (child,) = server.children()
    held = os.pidfd_open(child)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"x")
        assert sockets.receive(client, 1) == b"x"  # it is not only in the backlog
        server.process.send_signal(number)
        assert client.recv(1) == b""
    assert server.process.wait(10) == (-9 if number == signal.SIGKILL else 0)
    server.close()

    def gone() -> bool:
        try:
            signal.pidfd_send_signal(held, 0)
        except ProcessLookupError:
            return True
        return False

    bench.until(gone, "the data plane has ended", 3)
    os.close(held)


def test_the_api_ends_with_its_data_plane() -> None:
    server = Server()
    (child,) = server.children()
    os.kill(child, signal.SIGKILL)
    assert server.process.wait(10) != 0
    assert server.process.stderr is not None
    assert "the data plane ended by itself" in server.process.stderr.read()
    server.close()
