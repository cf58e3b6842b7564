"""A skew is planned for exactly the processes that were asked for, with all that it does not cover, or refused with the reason."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from squall.actions import ClockSkew, KernelWorker
from squall.faults import parse_fault
from squall.injectors import Host, Plan, Refusal, Site
from squall.injectors.clock import ClockInjector
from squall.kernel import process_memory, vdso
from squall.targets import ProcessTarget, RouteTarget, find_processes
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    specimens.needs_root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64"),
]

PARENT = """
import subprocess
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
print("ready", flush=True)
child.wait()
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A run to plan for."""
    return Site("some-run", tmp_path, "0-time.skew", 7)


@pytest.fixture
def family() -> Iterator[ProcessTarget]:
    """A process that has a child; the child ends with it."""
    with specimens.python(PARENT) as parent:
        (target,) = find_processes(pid=parent.pid)
        (child,) = target.with_descendants().descendants
        specimens.wait_for(lambda: vdso_is_there(child.pid), "the child has started")
        yield target
        child.signal(9)


def vdso_is_there(pid: int) -> bool:
    return any(row.name == "[vdso]" for row in process_memory.mappings(pid))


def planned(target: ProcessTarget, site: Site, **parameters: object) -> Plan:
    answer = ClockInjector().plan(parse_fault("time.skew", parameters), target, site)
    assert isinstance(answer, Plan), answer
    return answer


def test_one_process_gets_a_stub_and_a_worker_holds_its_lease(family: ProcessTarget, site: Site) -> None:
    plan = planned(family, site, offset="-1d", drift="200ppm")
    patch, worker = plan.actions
    assert isinstance(patch, ClockSkew)
    assert isinstance(worker, KernelWorker)
    assert patch.process == family.identity
    assert worker.config["offset_ns"] == -86_400_000_000_000
    assert worker.config["drift_ppm"] == 200
    assert worker.config["clocks"] == [0, 5, 8, 11]
    assert worker.config["stubs"] == [[family.identity.pid, family.identity.start_ticks, patch.token, patch.stub]]
    assert "by -24h and drifting by 200ppm" in worker.describe()
    assert plan.recoverability == "guarded"
    assert any("system calls" in part for part in plan.not_covered)
    assert any("timers" in part for part in plan.not_covered)
    assert any("time namespace is not used" in part for part in plan.not_covered)


def test_planning_changes_nothing_and_says_the_same_again(family: ProcessTarget, site: Site) -> None:
    pid = family.identity.pid
    before = process_memory.read(pid, *vdso.located(pid))
    assert planned(family, site, offset="1h") == planned(family, site, offset="1h")
    assert process_memory.read(pid, *vdso.located(pid)) == before


def test_with_descendants_each_gets_a_stub_and_one_worker_holds_all(family: ProcessTarget, site: Site) -> None:
    plan = planned(family, site, offset="1h", descendants=True)
    *patches, worker = plan.actions
    assert [one.process for one in patches if isinstance(one, ClockSkew)] == list(family.with_descendants().all)
    assert isinstance(worker, KernelWorker)
    assert len(worker.config["stubs"]) == 2
    assert worker.config["forks"] is True


def test_another_skew_of_the_same_processes_is_the_same_steps_with_another_worker(
    family: ProcessTarget, site: Site
) -> None:
    """So it is changed while it is on: the patched functions stay, the worker takes the new configuration."""
    plan = planned(family, site, offset="1h")
    patch, worker = plan.actions
    patch.do()
    other = planned(family, site, offset="2h", clocks=["tai"])
    assert other.actions[0] == patch
    assert other.actions[1] != worker
    patch.undo()
    assert patch.verify().normal


def test_a_route_has_no_clock_and_a_patched_one_is_refused(family: ProcessTarget, site: Site) -> None:
    skew = parse_fault("time.skew", {"offset": "1h"})
    refused = ClockInjector().plan(skew, RouteTarget("127.0.0.1:8000", "127.0.0.1:8080"), site)
    assert isinstance(refused, Refusal)
    at = vdso.located(family.identity.pid)[0] + vdso.own().entries["clock_gettime"]
    process_memory.write(family.identity.pid, at, b"\xcc")
    refused = ClockInjector().plan(skew, family, site)
    assert isinstance(refused, Refusal)
    assert "somebody has patched" in refused.reason


def test_what_it_needs_is_tried_and_said() -> None:
    assert ClockInjector().capable(Host.look()).works
    old = replace(Host.look(), pidfd=False)
    assert ClockInjector().capable(old).reason == "this kernel has no pidfds (Linux 5.3)"


def test_one_who_may_not_write_its_memory_is_told(family: ProcessTarget) -> None:
    with specimens.unprivileged() as run:
        done = run(
            "from squall.actions import ClockSkew\nfrom squall.targets import ProcessIdentity\n"
            "from squall.errors import TargetError\n"
            f"try: ClockSkew('a/0', ProcessIdentity.of({family.identity.pid}), 'it').prepare()\n"
            "except TargetError as error: print(error)"
        )
    assert "run as root" in done.stdout, done.stderr
    assert os.geteuid() == 0


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "give `offset`, `drift` or both"),
        ({"offset": "0s"}, "give `offset`, `drift` or both"),
        ({"offset": "3"}, "not a clock offset"),
        ({"offset": 3}, "has no unit"),
        ({"offset": "40000d"}, "out of range"),
        ({"offset": "-40000d"}, "out of range"),
        ({"drift": "600000ppm"}, "out of range"),
        (
            {"offset": "1s", "clocks": ["monotonic"]},
            "a skew of CLOCK_MONOTONIC is refused: language runtimes rely on it",
        ),
        ({"offset": "1s", "clocks": ["CLOCK_BOOTTIME"]}, "a skew of CLOCK_BOOTTIME is refused"),
        ({"offset": "1s", "clocks": ["sundial"]}, "there is no wall clock 'sundial': there are realtime,"),
        ({"offset": "1s", "clocks": []}, "at least 1 item"),
    ],
)
def test_a_wrong_skew_is_refused_with_the_reason(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        parse_fault("time.skew", parameters)
    assert said in str(refused.value)


def test_clocks_may_be_given_by_the_kernels_names() -> None:
    fault = parse_fault("time.skew", {"drift": -12.5, "clocks": ["CLOCK_REALTIME", "tai"]})
    assert fault.parameters() == {
        "offset": "0s", "drift": "-12.5ppm", "clocks": ["realtime", "tai"], "descendants": False,
    }  # fmt: skip
