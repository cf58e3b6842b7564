"""A route is named by the place where it listens."""

from __future__ import annotations

import pytest

from squall.errors import TargetError
from squall.targets import RouteTarget
from squall.targets.route import split_address


@pytest.mark.parametrize(
    ("address", "parts"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:8080", ("::1", 8080)), (":9000", ("", 9000))]
)
def test_an_address_has_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:", "a:0", "a:65536", "a:-1", "a:http", ""])
def test_a_port_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(TargetError, match="has no port between 1 and 65535"):
        split_address(address)


def test_two_runs_cannot_listen_in_one_place() -> None:
    one, two = RouteTarget("127.0.0.1:80", "127.0.0.1:81"), RouteTarget("127.0.0.1:80", "127.0.0.1:82")
    assert one.key == two.key
    assert one.alive()
    assert one.to_json() == {"kind": "route", "label": one.label, "listen": "127.0.0.1:80", "upstream": "127.0.0.1:81"}
