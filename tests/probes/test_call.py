"""What is sent, byte for byte, and that secrets go into it and nowhere else."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import InputError
from squall.probes.call import prepare
from squall.probes.spec import HttpRequest

if TYPE_CHECKING:
    from pathlib import Path


def request(**fields: Any) -> HttpRequest:
    return HttpRequest.model_validate({"url": "http://127.0.0.1:8080/orders?x=1", **fields})


def sent(**fields: Any) -> tuple[str, dict[str, str], bytes]:
    head, _, body = prepare(request(**fields), where="orders", close=False).data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


def test_a_request_names_its_host_and_asks_for_anything() -> None:
    first, headers, body = sent()
    assert first == "GET /orders?x=1 HTTP/1.1"
    assert headers["host"] == "127.0.0.1:8080"
    assert headers["accept"] == "*/*"
    assert "content-length" not in headers
    assert body == b""


def test_a_mapping_is_sent_as_json_and_text_as_it_is() -> None:
    _, headers, body = sent(method="POST", body={"sku": "a1", "more": [1, {"x": None}]})
    assert (headers["content-type"], headers["content-length"]) == ("application/json", str(len(body)))
    assert body == b'{"sku":"a1","more":[1,{"x":null}]}'
    _, headers, body = sent(method="POST", body="größe", headers={"content-type": "text/x"})
    assert (headers["content-type"], body) == ("text/x", "größe".encode())


def test_a_post_without_a_body_says_so() -> None:
    assert sent(method="POST")[1]["content-length"] == "0"


def test_own_headers_win_over_squalls() -> None:
    headers = sent(headers={"host": "shop.test", "User-Agent": "me"})[1]
    assert (headers["host"], headers["user-agent"]) == ("shop.test", "me")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "shown"),
    [
        ("http://shop.test", "shop.test", 80, False, "shop.test"),
        ("https://shop.test", "shop.test", 443, True, "shop.test"),
        ("https://shop.test:80/", "shop.test", 80, True, "shop.test:80"),
        ("http://[::1]:81/", "::1", 81, False, "[::1]:81"),
    ],
)
def test_where_an_address_leads(url: str, host: str, port: int, tls: bool, shown: str) -> None:  # noqa: FBT001 - a column
    call = prepare(request(url=url), where="orders", close=True)
    assert (call.host, call.port, call.tls) == (host, port, tls)
    assert f"Host: {shown}\r\n".encode() in call.data
    assert b"Connection: close\r\n" in call.data


def test_which_statuses_are_success() -> None:
    call = prepare(request(success=["2xx", "404"]), where="orders", close=False)
    assert call.success == {*range(200, 300), 404}


def test_a_secret_comes_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    (tmp_path / "token").write_text("s4cret\r\n")
    headers = sent(
        headers={
            "Authorization": {"env": "SHOP_TOKEN", "prefix": "Bearer "},
            "X-Key": {"file": str(tmp_path / "token")},
        }
    )[1]
    assert (headers["authorization"], headers["x-key"]) == ("Bearer s3cret", "s4cret")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"url": "http://:80/"}, "has no host"),
        ({"url": "http://a:99999/"}, "is not an address"),
        ({"url": "http://[::1/"}, "is not an address"),
        ({"url": "http://me:pw@a/"}, "credentials do not belong in an address"),
        ({"headers": {"a b": "c"}}, "'a b' cannot be a header's name"),
        ({"headers": {"a": "b\r\nc: d"}}, "header a: .* holds a line end"),
        ({"headers": {"Content-Length": "3"}}, "content-length is set by Squall itself"),
        ({"headers": {"a": {"env": "SQUALL_NOT_SET"}}}, "header a: the environment variable SQUALL_NOT_SET is not set"),
        (
            {"headers": {"a": {"file": "/nowhere/token"}}},
            "header a: the secret's file /nowhere/token cannot be read: No such file",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        prepare(request(**fields), where="orders", close=False)
    assert str(raised.value).startswith("orders: ")


def test_a_bad_secret_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret\nX: y")
    with pytest.raises(InputError, match="its secret holds a line end") as raised:
        prepare(request(headers={"a": {"env": "SHOP_TOKEN"}}), where="orders", close=False)
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
