"""A table of rules is put into a network namespace and taken out again, and nobody else's is touched."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from squall.actions import NftTable
from squall.actions.base import decode, encode
from squall.actions.nft_table import table_name
from squall.errors import ActionFailed, CannotInject
from squall.targets import find_netns
from tests.namespaces import named_netns
from tests.specimens import elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREIGN = """table inet foreign {
  chain output {
    type filter hook output priority 0
    udp dport 5354 drop
  }
}
"""
RULES = "chain output {\ntype nat hook output priority -100\nudp dport 5353 redirect to :20000\n}"


@pytest.fixture
def netns() -> Iterator[str]:
    if shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("there is no nft: apt-get install nftables")
    with named_netns() as name:
        yield name


def table(netns: str, rules: str = RULES) -> NftTable:
    return NftTable(find_netns(netns).namespace.to_json(), table_name("run/0-x.1"), rules, 20_000, "a test's rules")


def nft(netns: str, *words: str, script: str | None = None) -> str:
    argv = ["nsenter", f"--net=/run/netns/{netns}", "nft", *words]
    return subprocess.run(argv, input=script, capture_output=True, text=True, check=True).stdout


@pytest.mark.kernel
def test_it_is_there_and_gone_and_others_rules_are_as_before(netns: str) -> None:
    nft(netns, "-f", "-", script=FOREIGN)
    before = nft(netns, "list", "ruleset")
    step = table(netns).prepare()
    step.do()
    assert "table inet squall-run-0-x-1 {" in nft(netns, "list", "ruleset")
    assert not step.verify().normal
    step.undo()
    step.undo()  # once more is harmless
    assert step.verify().normal
    assert nft(netns, "list", "ruleset") == before


@pytest.mark.kernel
def test_a_table_of_that_name_is_not_taken_over(netns: str) -> None:
    nft(netns, "add", "table", "inet", "squall-run-0-x-1")
    with pytest.raises(CannotInject, match="there is a table inet squall-run-0-x-1 already"):
        table(netns).prepare()


@pytest.mark.kernel
def test_rules_that_the_kernel_refuses_leave_nothing(netns: str) -> None:
    step = table(netns, "chain output { nonsense }").prepare()
    with pytest.raises(ActionFailed, match="nft: "):
        step.do()
    assert step.verify().normal
    assert nft(netns, "list", "ruleset") == ""


@pytest.mark.kernel
def test_a_bare_interpreter_undoes_it_from_the_journal(netns: str) -> None:
    step = table(netns).prepare()
    step.do()
    script = (
        "import sys, json\n"
        "from squall.actions import decode\n"
        "step = decode(json.loads(sys.argv[1]))\n"
        "step.undo(); print(step.verify())\n"
    )
    assert "normal=True" in elsewhere(script, json.dumps(encode(step))).stdout
    assert decode(encode(step)) == step


@pytest.mark.kernel
def test_a_namespace_that_is_gone_leaves_nothing_to_undo(netns: str) -> None:
    step = table(netns).prepare()
    step.do()
    subprocess.run(["ip", "netns", "delete", netns], check=True)
    step.undo()
    assert step.verify().detail == "the network namespace is gone"
