"""Kills, crashes and pauses are planned for exactly the processes that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.actions import Pause, PauseCycle, Signal
from squall.faults import parse_fault
from squall.injectors import Host, Plan, Refusal, Site
from squall.injectors.pause import PauseInjector
from squall.injectors.signals import SignalInjector
from squall.targets import ProcessTarget, RouteTarget, find_processes
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARENT = """
import subprocess, time
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
print("ready", flush=True)
child.wait()
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A run to plan for."""
    return Site("some-run", tmp_path, "0-fault", 7)


@pytest.fixture
def family() -> Iterator[ProcessTarget]:
    """A process that has a child; the child ends with it."""
    with specimens.python(PARENT) as parent:
        (target,) = find_processes(pid=parent.pid)
        (child,) = target.with_descendants().descendants
        yield target
        child.signal(9)


def planned(answer: Plan | Refusal) -> Plan:
    """A plan, not a refusal."""
    assert isinstance(answer, Plan), answer
    return answer


@pytest.mark.parametrize(
    ("tag", "signal"), [("process.kill", "SIGKILL"), ("process.kill", "SIGTERM"), ("process.crash", "SIGABRT")]
)
def test_a_signal_goes_to_the_target_alone(family: ProcessTarget, site: Site, tag: str, signal: str) -> None:
    plan = planned(SignalInjector().plan(parse_fault(tag, {"signal": signal}), family, site))
    assert plan.actions == (Signal(family.identity, family.command, signal),)
    assert plan.recoverability == "irreversible"
    assert any("recover or except" in part for part in plan.not_covered) == (tag == "process.crash")


def test_descendants_are_hit_first_and_only_when_asked_for(family: ProcessTarget, site: Site) -> None:
    fault = parse_fault("process.kill", {"descendants": True})
    hit = [
        action.process
        for action in planned(SignalInjector().plan(fault, family, site)).actions
        if isinstance(action, Signal)
    ]
    assert hit == [*family.with_descendants().descendants, family.identity]


def test_a_pause_without_gaps_is_a_stop(family: ProcessTarget, site: Site) -> None:
    plan = planned(PauseInjector().plan(parse_fault("process.pause", {}), family, site))
    assert plan.actions == (Pause(family.identity, family.command),)
    assert plan.recoverability == "guarded"


def test_a_duty_cycle_has_a_worker_for_each_process(family: ProcessTarget, site: Site) -> None:
    fault = parse_fault("process.pause", {"stopped": "20ms", "every": "100ms", "descendants": True})
    plan = planned(PauseInjector().plan(fault, family, site))
    assert [type(action) for action in plan.actions] == [PauseCycle, PauseCycle]
    cycles = [action for action in plan.actions if isinstance(action, PauseCycle)]
    assert len({cycle.token for cycle in cycles}) == 2
    assert {(cycle.stopped_ns, cycle.every_ns) for cycle in cycles} == {(20_000_000, 100_000_000)}
    assert all(cycle.token.startswith("some-run/0-fault.") for cycle in cycles)


def test_a_route_is_no_process(site: Site) -> None:
    route = RouteTarget("127.0.0.1:8000", "127.0.0.1:8080")
    for injector, tag in ((SignalInjector(), "process.kill"), (PauseInjector(), "process.pause")):
        answer = injector.plan(parse_fault(tag, {}), route, site)
        assert isinstance(answer, Refusal)
        assert answer.reason.endswith("not a route")


def test_both_need_pidfds_and_say_so() -> None:
    old = Host(root=True, cgroups=True, pidfd=False, proxy=True, kernel="4.19")
    for injector in (SignalInjector(), PauseInjector()):
        assert injector.capable(Host.look()).works
        assert injector.capable(old).works is False
        assert injector.capable(old).reason == "this kernel has no pidfds (Linux 5.3)"
