"""The chooser takes the best mechanism and can say why not each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from squall.actions import Action, Pause, Signal, Worker
from squall.errors import CannotInject
from squall.faults import FAULTS, Fault, parse_fault
from squall.injectors import INJECTORS, Capability, Chooser, Host, Plan, Refusal, Site
from squall.targets import ProcessIdentity, ProcessTarget, RouteTarget

if TYPE_CHECKING:
    from pathlib import Path

    from squall.actions import Recoverability
    from squall.targets import Target

WHO = ProcessIdentity.mine()
TARGET = ProcessTarget(WHO, "shop")
STEPS: dict[str, Action] = {
    "lease": Worker("run/0", "module", "work", {}),
    "guarded": Pause(WHO, "shop"),
    "irreversible": Signal(WHO, "shop", "SIGKILL"),
}


class Candidate:
    """A mechanism that plans one step of a given recoverability."""

    faults: ClassVar[tuple[str, ...]] = ("process.pause",)
    summary: ClassVar[str] = "for this test"

    def __init__(
        self,
        mechanism: str,
        recoverability: Recoverability,
        accuracy_ns: int = 0,
        cost: int = 0,
        *,
        works: bool = True,
        says: str = "",
    ) -> None:
        self.mechanism, self.recoverability = mechanism, recoverability  # type: ignore[misc]  # one class plays several
        self._accuracy_ns, self._cost, self._works, self._says = accuracy_ns, cost, works, says

    mechanism: ClassVar[str]
    recoverability: ClassVar[Recoverability]

    def capable(self, host: Host) -> Capability:  # noqa: ARG002
        return Capability(self._works, "" if self._works else "this kernel lacks it")

    def plan(self, fault: Fault, target: Target, site: Site) -> Plan | Refusal:  # noqa: ARG002
        if self._says:
            return Refusal(self.mechanism, self._says)
        return Plan(
            self.mechanism, (STEPS[self.recoverability],), "exact", accuracy_ns=self._accuracy_ns, cost=self._cost
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A run to plan for."""
    return Site("some-run", tmp_path, "0-fault", 7)


def test_the_order_of_preference(site: Site) -> None:
    candidates = [
        Candidate("absent", "lease", works=False),
        Candidate("by-halves", "lease", says="cannot honour the correlation"),
        Candidate("final", "irreversible"),
        Candidate("guarded", "guarded"),
        Candidate("costly", "lease", accuracy_ns=10, cost=2),
        Candidate("coarse", "lease", accuracy_ns=500),
        Candidate("best", "lease", accuracy_ns=10, cost=1),
    ]
    choice = Chooser(candidates, Host.look()).choose(parse_fault("process.pause", {}), TARGET, site)
    assert choice.plan.mechanism == "best"
    assert {one.mechanism: one.reason for one in choice.refused} == {
        "absent": "this kernel lacks it",
        "by-halves": "cannot honour the correlation",
        "costly": "costs others more than best",
        "coarse": "less accurate than best",
        "guarded": "guarded where best is lease",
        "final": "irreversible where best is lease",
    }


def test_where_none_can_every_reason_is_given(site: Site) -> None:
    chooser = Chooser(
        [Candidate("absent", "lease", works=False), Candidate("no", "lease", says="not today")], Host.look()
    )
    with pytest.raises(
        CannotInject,
        match=r"process\.pause cannot be injected into shop .*: absent: this kernel lacks it; no: not today",
    ):
        chooser.choose(parse_fault("process.pause", {}), TARGET, site)
    with pytest.raises(CannotInject, match="no mechanism makes it real on this machine"):
        chooser.choose(parse_fault("process.kill", {}), TARGET, site)


def test_every_fault_has_a_mechanism() -> None:
    chooser = Chooser(INJECTORS, Host.look())
    for tag in FAULTS:
        rows = chooser.survey(tag)
        assert rows, f"nothing makes {tag} real"
        assert rows[0][1].works, f"{tag}: {rows[0][1].reason}"


def test_a_fault_finds_its_mechanism_by_its_target(site: Site) -> None:
    chooser = Chooser(INJECTORS, Host.look())
    assert chooser.choose(parse_fault("process.pause", {}), TARGET, site).plan.mechanism == "sigstop"
    route = RouteTarget("127.0.0.1:8000", "127.0.0.1:8080")
    with pytest.raises(CannotInject, match="sigstop: stops processes, not a route"):
        chooser.choose(parse_fault("process.pause", {}), route, site)
    plan = chooser.choose(parse_fault("tcp.latency", {"latency": "100ms"}), route, site).plan
    assert plan.mechanism == "proxy"
    assert plan.recoverability == "lease"
    assert [action.kind for action in (*plan.setup, *plan.actions)] == ["proxy-route", "toxic"]
