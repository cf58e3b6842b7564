"""What the kernel is asked and told by netlink is what `ip` and `tc` would show."""

from __future__ import annotations

import errno
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from squall.kernel.bpf import Collection
from squall.kernel.netlink import (
    CLSACT_EGRESS,
    CLSACT_INGRESS,
    Link,
    LinkWatch,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
)
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    with Netlink() as found:
        yield found


def _ip(*words: str) -> None:
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip`; Debian's package is iproute2")
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _links(netlink: Netlink) -> dict[str, Link]:
    return {link.name: link for link in netlink.links()}


def test_attributes_are_read_as_they_were_written() -> None:
    block = attribute(1, b"abcde") + attribute(2, attribute(3, b"\1")) + attribute(0x8004, b"")
    assert attributes(block) == {1: b"abcde", 2: attribute(3, b"\1"), 4: b""}
    assert attributes(block[:3]) == {}
    assert attributes(b"\0" * 8) == {}


def test_interfaces_are_listed_and_set_up_and_watched(netlink: Netlink) -> None:
    assert set(_links(netlink)) == {"lo"}
    watch = LinkWatch()
    _ip("link", "add", "near", "type", "veth", "peer", "name", "far")
    wait_for(watch.changed, "the new interfaces are told of")
    one = _links(netlink)["near"]
    assert (one.kind, one.up, one.header, one.mtu, len(one.address)) == ("veth", False, 14, 1500, 6)
    netlink.set_up(one.index)
    assert _links(netlink)["near"].up
    netlink.set_up(one.index, up=False)
    assert not _links(netlink)["near"].up
    while watch.changed():
        pass
    assert not watch.changed()
    watch.close()


def test_addresses_are_listed_with_their_interface(netlink: Netlink) -> None:
    _ip("addr", "add", "10.80.0.1/24", "dev", "lo")
    found = netlink.addresses()
    assert (1, "10.80.0.1") in found
    assert (1, "127.0.0.1") in found


def test_filters_and_their_clsact_come_and_go(netlink: Netlink) -> None:
    assert netlink.add_clsact(1)
    assert not netlink.add_clsact(1)
    with Collection.load("network", ("egress",)) as programs:
        for priority in (9, 3):
            netlink.add_bpf_filter(1, CLSACT_EGRESS, priority, programs.program("egress"), f"squall:{priority}")
        with pytest.raises(NetlinkError) as refused:
            netlink.add_bpf_filter(1, CLSACT_EGRESS, 3, programs.program("egress"), "another")
        assert refused.value.errno == errno.EEXIST
    first, second = netlink.filters(1, CLSACT_EGRESS)
    assert (first.name, second.name, first.kind, first.program > 0) == ("squall:3", "squall:9", "bpf", True)
    assert netlink.filters(1, CLSACT_INGRESS) == []
    netlink.remove_filter(first)
    assert netlink.filters(1, CLSACT_EGRESS) == [second]
    netlink.remove_clsact(1)
    assert [one.kind for one in netlink.qdiscs(1)] == ["noqueue"]


def test_a_refusal_says_what_the_kernel_says(netlink: Netlink) -> None:
    with pytest.raises(NetlinkError) as refused:
        netlink.add_qdisc(1, "nothing-like-this")
    assert refused.value.errno == errno.ENOENT
    with pytest.raises(NetlinkError) as refused:
        netlink.set_up(4711)
    assert refused.value.errno == errno.ENODEV
    assert set(_links(netlink)) == {"lo"}  # and goes on
