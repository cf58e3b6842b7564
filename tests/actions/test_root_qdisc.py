"""A queue of Squall's own at an interface: what was there comes back, and nothing of anybody's is lost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from squall.actions import RootQdisc, encode
from squall.errors import CannotInject, TargetError
from squall.injectors.netem import HtbInjector
from squall.kernel.queues import fq_queue, htb_queue
from tests import specimens, wires

if TYPE_CHECKING:
    from tests.wires import Wire

HANDLE = 0x5CA0_0000


def step(wire: Wire, rate: int = 1_000_000) -> RootQdisc:
    """An htb at the far end: every kernel that the tests know has it."""
    if not HtbInjector().capable(None).works:  # type: ignore[arg-type]  # it asks the kernel, not the host
        pytest.skip("this kernel has no htb, or no programs on interfaces")
    return RootQdisc(wire.namespace.to_json(), wire.far_link, index_of(wire), htb_queue(HANDLE, rate)[0])


def queues(wire: Wire) -> str:
    """What `tc qdisc` says at the far end, without how many packets have passed."""
    return re.sub(r"direct_packets_stat \d+", "", wire.far_end("tc", "qdisc"))


def index_of(wire: Wire) -> int:
    return int(wire.far_end("ip", "-o", "link", "show", wire.far_link).split(":")[0])


@pytest.mark.kernel
def test_the_kernels_own_queue_comes_back() -> None:
    with wires.wire() as wire:
        before = queues(wire)
        found = step(wire).prepare()
        assert found.before
        found.do()
        assert "htb 5ca0:" in queues(wire)
        assert not found.verify().normal
        for _ in range(2):
            found.undo()
            assert found.verify().normal
        assert queues(wire) == before


@pytest.mark.kernel
def test_what_somebody_configured_is_refused_by_its_name_and_stays() -> None:
    with wires.wire() as wire:
        found = step(wire).prepare()
        wire.far_end("tc", "qdisc", "add", "dev", wire.far_link, "root", "handle", "77:", "htb")
        theirs = queues(wire)
        with pytest.raises(CannotInject, match=r"somebody configured .htb 77:"):
            step(wire).prepare()
        with pytest.raises(CannotInject, match="cannot be put"):  # it came between the look and the deed
            found.do()
        found.undo()
        assert queues(wire) == theirs
        assert found.verify().normal


@pytest.mark.kernel
def test_a_queue_that_took_our_place_is_left_alone() -> None:
    with wires.wire() as wire:
        found = step(wire).prepare()
        found.do()
        wire.far_end("tc", "qdisc", "replace", "dev", wire.far_link, "root", "handle", "9:", "htb")
        theirs = queues(wire)
        found.undo()
        assert found.verify().normal
        assert queues(wire) == theirs


@pytest.mark.kernel
def test_undo_is_harmless_when_the_interface_or_its_namespace_is_gone() -> None:
    with wires.wire() as wire:
        found = step(wire).prepare()
        found.do()
        wire.cut()
        found.undo()
        assert found.verify().normal
        with pytest.raises(TargetError, match="is gone"):
            found.prepare()
    found.undo()
    assert found.verify().normal


@pytest.mark.kernel
def test_it_is_undone_by_a_bare_interpreter() -> None:
    with wires.wire() as wire:
        found = step(wire).prepare()
        found.do()
        script = "import json\nfrom squall.actions import decode\na = decode(json.loads(sys.argv[1]))\na.undo()\nprint(a.verify().normal)"
        said = specimens.elsewhere(script, json.dumps(encode(found)))
        assert said.stdout == "True\n", said.stderr
        assert "htb" not in queues(wire)


@pytest.mark.kernel
def test_a_rate_is_changed_in_place() -> None:
    with wires.wire() as wire:
        found, other = step(wire).prepare(), step(wire, 2_500_000)
        found.do()
        try:
            assert found.become(other, ())
            assert "rate 20Mbit" in wire.far_end("tc", "class", "show", "dev", wire.far_link)
            assert not found.become(replace(other, ifindex=other.ifindex + 1), ())
            assert not found.become(replace(other, layers=fq_queue(HANDLE)), ())
        finally:
            found.undo()
