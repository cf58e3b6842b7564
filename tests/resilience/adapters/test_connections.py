"""The small client's connections: kept, bounded, waited for in order, changed live, and never held longer than the deadline."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from squall_resilience import deadline
from squall_resilience.adapters import connections
from squall_resilience.adapters.connections import ConnectTimeout, NotConnected
from squall_resilience.adapters.http_client import AnswerTooLarge, CutShort, HttpClient, Request
from squall_resilience.adapters.http_rules import NotSent, retry_after_seconds
from squall_resilience.adapters.requests import session
from squall_resilience.client import ClientSettings
from squall_resilience.errors import DeadlineExceeded, SettingsError
from squall_resilience.fallback import Fallback, FallbackSettings
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.retry import RetrySettings
from squall_resilience.timeout import TimeoutSettings
from tests.resilience.adapters.conftest import Handler, Server
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.resilience.adapters.conftest import Script


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with HttpClient(settings=ClientSettings(connections=2, per_host=2, pool_timeout=5)) as made:
        yield made


def in_threads(count: int, work: object) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    return threads


def test_a_connection_is_kept_and_used_again(client: HttpClient, script: Script) -> None:
    for _ in range(3):
        client.request("GET", script.url)
    assert len({seen.client for seen in script.seen}) == 1
    assert client.connections.figures == {"open": 1, "idle": 1, "waiting": 0}


def test_a_kept_connection_that_the_service_has_closed_is_noticed(client: HttpClient, script: Script) -> None:
    script.closes = True
    for _ in range(4):
        assert client.request("GET", script.url).ok
    assert len({seen.client for seen in script.seen}) == 4


def test_an_idle_connection_is_not_used_for_longer_than_allowed(script: Script) -> None:
    with HttpClient(settings=ClientSettings(idle=0.0)) as client:
        for _ in range(2):
            client.request("GET", script.url)
    assert len({seen.client for seen in script.seen}) == 2


def test_as_many_connections_as_allowed_and_no_more(client: HttpClient, script: Script) -> None:
    script.trickles = 10.0
    threads = in_threads(6, lambda: client.request("GET", script.url))
    wait_for(lambda: len(script.seen) == 2 and client.connections.figures["waiting"] == 4, "two are served, four wait")
    assert client.connections.figures["open"] == 2
    client.configure(ClientSettings(connections=5, per_host=5, pool_timeout=5))
    wait_for(lambda: len(script.seen) == 5, "three of them go on at once")
    assert client.connections.figures == {"open": 5, "idle": 0, "waiting": 1}
    script.trickles = 0.0
    script.let_go.set()
    for thread in threads:
        thread.join(10)
    assert client.connections.figures["waiting"] == 0
    assert client.connections.figures["open"] <= 5


def test_an_answer_that_is_cut_short_is_an_error(client: HttpClient, script: Script) -> None:
    script.hangs_before = "body"
    script.let_go.set()
    with pytest.raises(CutShort) as error:
        client.request("GET", script.url)
    assert isinstance(error.value, ConnectionError)
    assert client.connections.figures["open"] == 0


def test_shrinking_closes_what_nobody_uses(client: HttpClient, script: Script) -> None:
    script.trickles = 0.01
    for thread in in_threads(2, lambda: client.request("GET", script.url)):
        thread.join(10)
    assert client.connections.figures["idle"] == 2
    client.configure(ClientSettings(connections=1, per_host=1))
    assert client.connections.figures == {"open": 1, "idle": 1, "waiting": 0}


def test_who_waits_too_long_for_a_connection_has_sent_nothing(script: Script) -> None:
    script.hangs_before = "head"
    settings = ClientSettings(connections=1, per_host=1, pool_timeout=0.05)
    with HttpClient(settings=settings) as client:
        answers: list[type[Exception]] = []

        def call() -> None:
            try:
                client.request("GET", script.url)
            except ConnectionError as error:
                answers.append(type(error))

        (thread,) = in_threads(1, call)
        wait_for(lambda: len(script.seen) == 1, "the only connection is in use")
        with pytest.raises(NotSent, match=r"at most 1 to this host and 1 in all"):
            client.request("GET", script.url)
        script.let_go.set()
        thread.join(10)
    assert len(script.seen) == len(answers) == 1


def test_an_idle_connection_elsewhere_makes_room(script: Script) -> None:
    with HttpClient(settings=ClientSettings(connections=1, per_host=1)) as client:
        client.request("GET", script.url)
        client.request("GET", script.url.replace("127.0.0.1", "localhost"))
        assert client.connections.figures["open"] == 1
    assert len({seen.client for seen in script.seen}) == 2


def test_a_policys_own_client_settings_hold_for_its_host_and_change_live(script: Script) -> None:
    script.hangs_before = "head"
    policy = Policy("inventory", PolicySettings(client=ClientSettings(read_timeout=0.05)), registry=None)
    with HttpClient(policy) as mine:
        with pytest.raises(TimeoutError):
            mine.request("GET", script.url)
        policy.configure(PolicySettings())
        script.hangs_before = ""
        assert mine.request("GET", script.url).ok


def test_a_service_that_sends_a_byte_at_a_time_does_not_outstay_the_deadline(
    client: HttpClient, script: Script
) -> None:
    script.trickles, script.body = 0.05, b"x" * 200
    began = time.monotonic()
    with deadline.within(0.3), pytest.raises(TimeoutError):
        client.request("GET", script.url)
    assert time.monotonic() - began < 3
    policy = Policy("inventory", PolicySettings(timeout=TimeoutSettings(0.3)), registry=None)
    with HttpClient(policy) as mine, pytest.raises(DeadlineExceeded):
        mine.request("GET", script.url)
    assert client.connections.figures["open"] == 0


def test_nothing_is_sent_once_the_deadline_has_passed(client: HttpClient, script: Script) -> None:
    with deadline.within(0.0), pytest.raises(TimeoutError):
        client.request("GET", script.url)
    assert script.seen == []


def test_a_fallback_has_the_last_good_answer_of_the_same_request(script: Script) -> None:
    script.statuses = [200, 503]
    policy = Policy("inventory", PolicySettings(fallback=FallbackSettings()), registry=None)
    with HttpClient(policy) as client:
        assert client.request("GET", script.url, headers={"Authorization": "a"}).status == 200
        assert client.request("GET", script.url, headers={"Authorization": "a"}).body == b'{"left": 7}'
        assert client.request("GET", script.url, headers={"Authorization": "b"}).status == 503
        assert client.request("POST", script.url, headers={"Authorization": "a"}).status == 503
    assert [trace.stopped_at for trace in policy.traces] == ["fallback", "transport", "transport"]


def test_a_fallbacks_answer_may_be_made_from_the_request(script: Script) -> None:
    script.statuses = [503]

    def made(request: Request) -> object:
        return request.target

    fallback = Fallback("inventory", FallbackSettings(last_good=False), compute=made, registry=None)
    with HttpClient(Policy("inventory", links=[fallback], registry=None)) as client:
        assert client.request("GET", script.url) == "/stock/a1"


def test_json_goes_and_comes(client: HttpClient, script: Script) -> None:
    assert client.request("POST", script.url + "?exact=1", data={"sku": "a1"}).json() == {"left": 7}
    assert (script.seen[0].path, script.seen[0].body) == ("/stock/a1?exact=1", b'{"sku": "a1"}')
    assert script.seen[0].headers["content-type"] == "application/json"


def test_an_answer_may_not_be_longer_than_allowed(script: Script) -> None:
    with HttpClient(body_bytes_max=5) as client:
        with pytest.raises(AnswerTooLarge):
            client.request("GET", script.url)
        assert client.connections.figures["open"] == 0


@pytest.mark.parametrize("url", ["ftp://host/", "127.0.0.1:80", "http:///path"])
def test_what_is_no_url_is_refused(client: HttpClient, url: str) -> None:
    with pytest.raises(ValueError, match="is no http:// or https:// URL"):
        client.request("GET", url)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # a fork is what it is about
def test_a_forked_child_opens_connections_of_its_own(client: HttpClient, script: Script) -> None:
    client.request("GET", script.url)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if client.request("GET", script.url).ok else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    client.request("GET", script.url)
    assert [seen.client == script.seen[0].client for seen in script.seen] == [True, False, True]


def test_more_to_one_host_than_in_all_makes_no_sense() -> None:
    with pytest.raises(SettingsError, match="at most what `connections` allows in all, 5"):
        ClientSettings(connections=5, per_host=6)


def test_the_defaults_are_explicit() -> None:
    """C4: connect, read and write 3 s; 100 connections, 100 to each host, kept for 60 s."""
    settings = ClientSettings()
    assert (settings.connect_timeout, settings.read_timeout, settings.write_timeout) == (3, 3, 3)
    assert (settings.connections, settings.per_host, settings.idle) == (100, 100, 60)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("999999999", 86_400.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 1999 23:58:00 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 -0000", 59.0),
        ("-3", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=946_684_740.0) == seconds


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for localhost that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here: sudo apt-get install openssl")
    path = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, *names, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True
    )
    with path.open("a") as both:
        both.write(path.with_suffix(".crt").read_text())
    return path


def test_waits_are_bounded_with_tls_too(script: Script, certificate: Path) -> None:
    script.trickles, script.body = 0.05, b"x" * 200
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    with Server(("127.0.0.1", 0), type("Handler", (Handler,), {"script": script})) as server:
        server.socket = serving.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        url = f"https://localhost:{server.server_address[1]}/"
        with HttpClient(context=ssl.create_default_context(cafile=certificate.with_suffix(".crt"))) as client:
            with deadline.within(0.5), pytest.raises(TimeoutError):
                client.request("GET", url)
            script.trickles = 0.0
            assert [client.request("GET", url).body for _ in range(2)] == [b"x" * 200] * 2
            with deadline.within(0.0), pytest.raises(TimeoutError):
                client.request("GET", url)
        with HttpClient() as distrustful, pytest.raises(ssl.SSLCertVerificationError):
            distrustful.request("GET", url)
        server.shutdown()
        thread.join(5)
    assert len({seen.client for seen in script.seen}) == 2


def test_what_could_not_be_connected_was_not_sent_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def unreachable(*_: object, **__: object) -> socket.socket:
        tries.append(1)
        raise (socket.gaierror(socket.EAI_AGAIN, "try again"), OSError(errno.EHOSTUNREACH, "no route"))[len(tries) % 2]

    monkeypatch.setattr(socket, "create_connection", unreachable)
    policy = Policy("inventory", PolicySettings(retry=RetrySettings(attempts=2, base=0.001, cap=0.002)), registry=None)
    with HttpClient(policy) as client, pytest.raises(NotConnected, match="inventory:8083: try again"):
        client.request("POST", "http://inventory:8083/", body=b"order")
    assert len(tries) == 2


def test_a_connection_that_is_not_answered_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            with (
                HttpClient(settings=ClientSettings(connect_timeout=0.1)) as client,
                pytest.raises(ConnectTimeout, match=r"no connection to 127\.0\.0\.1:\d+ within 0\.1 s"),
            ):
                client.request("GET", f"http://127.0.0.1:{full.getsockname()[1]}/")
        finally:
            for each in waiting:
                each.close()


def test_a_kept_connection_that_turns_out_to_be_dead(
    client: HttpClient, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be sent twice is sent again on a new one; of the rest nobody knows whether it has arrived."""
    script.closes = True
    monkeypatch.setattr(connections, "_is_over", lambda _: False)
    assert [client.request("GET", script.url).ok for _ in range(3)] == [True] * 3
    with pytest.raises(ConnectionError):
        client.request("POST", script.url, body=b"order")
    assert [seen.method for seen in script.seen] == ["GET"] * 3
    assert client.connections.figures == {"open": 0, "idle": 0, "waiting": 0}


def test_an_idle_connection_that_is_too_old_is_closed_when_another_comes_back(script: Script) -> None:
    with HttpClient(settings=ClientSettings(idle=0.05)) as client:
        script.trickles = 0.01
        for thread in in_threads(3, lambda: client.request("GET", script.url)):
            thread.join(10)
        script.trickles, script.body = 0.0, b"x"
        kept = client.connections.figures["idle"]
        time.sleep(0.06)
        client.request("GET", script.url)
        assert 1 <= kept <= 3
        assert client.connections.figures == {"open": 1, "idle": 1, "waiting": 0}


def test_a_client_that_is_closed_keeps_nothing(script: Script) -> None:
    client = HttpClient()
    client.close()
    assert client.request("GET", script.url).ok
    assert client.connections.figures == {"open": 0, "idle": 0, "waiting": 0}


def test_requests_own_time_out_is_cut_to_what_is_left(script: Script) -> None:
    script.hangs_before = "head"
    with session(None) as made:
        began = time.monotonic()
        for asked in (0.05, (3.0, 0.05)):
            with pytest.raises(requests.ReadTimeout):
                made.get(script.url, timeout=asked)
        with deadline.within(0.05), pytest.raises(requests.ReadTimeout):
            made.get(script.url, timeout=30)
        with deadline.within(0.0), pytest.raises(requests.Timeout, match="the deadline has passed"):
            made.get(script.url, timeout=30)
        assert time.monotonic() - began < 5
    assert len(script.seen) == 3
