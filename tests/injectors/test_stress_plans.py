"""Faults that use something up are planned in full or refused with the reason; planning touches nothing."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from squall.actions import FileLimit, Worker
from squall.actions.worker import surviving
from squall.faults import parse_fault
from squall.injectors import Host, Plan, Refusal, Site
from squall.injectors.file_limit import FileLimitInjector
from squall.injectors.stress import StressInjector
from squall.kernel.memory import machine_memory
from squall.targets import ProcessTarget, RouteTarget, find_cgroup, find_processes
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from squall.targets import Target

ROUTE = RouteTarget("127.0.0.1:8000", "127.0.0.1:8080")
ON_DISK = "/var/tmp"  # noqa: S108 - a folder on a real disk; nothing is made there


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A run to plan for."""
    return Site("some-run", tmp_path, "0-stress", 7)


@pytest.fixture
def target() -> Iterator[ProcessTarget]:
    """A process without a cgroup of its own."""
    with specimens.sleeper() as specimen:
        (found,) = find_processes(pid=specimen.pid)
        yield found


def planned(answer: Plan | Refusal) -> Worker:
    """The one worker of a plan."""
    assert isinstance(answer, Plan), answer
    (action,) = answer.actions
    assert isinstance(action, Worker)
    assert answer.recoverability == "lease"
    assert not surviving(action.token)
    return action


def reason(answer: Plan | Refusal) -> str:
    """Why it was refused."""
    assert isinstance(answer, Refusal), answer
    return answer.reason


def plan(tag: str, target: Target, site: Site, **parameters: object) -> Plan | Refusal:
    """What the injector answers."""
    return StressInjector().plan(parse_fault(tag, parameters), target, site)


def test_cpu(target: ProcessTarget, site: Site) -> None:
    answer = plan("stress.cpu", target, site, load="40%", workers=2)
    worker = planned(answer)
    assert worker.config == {"load": 0.4, "workers": 2, "cgroups": []}
    assert worker.describe() == f"start a worker: burn 40% of each of 2 cores beside {target.label}"
    assert worker.token == f"some-run/0-stress.{target.identity.pid}"
    assert worker.holds == (f"{target.key}:cpu",)
    assert isinstance(answer, Plan)
    assert "the target has no cgroup of its own: everything on this machine feels it alike" in answer.not_covered


def test_it_works_in_the_cgroup_that_the_target_has_of_its_own(target: ProcessTarget, site: Site) -> None:
    with specimens.own_cgroup("cpu") as folder:
        (folder / "cgroup.procs").write_text(str(target.identity.pid))
        answer = plan("stress.cpu", target, site)
        assert planned(answer).config["cgroups"] == [str(folder)]
        assert planned(answer).purpose.endswith(f"in the cgroup of {target.label}")
        group = find_cgroup(str(folder))
        assert planned(plan("stress.cpu", group, site)).config["cgroups"] == [str(folder)]


@specimens.needs_root
def test_a_share_of_what_the_target_may_use(target: ProcessTarget, site: Site) -> None:
    cores = os.cpu_count() or 1
    whole = planned(plan("stress.cpu", target, site, load="50%", of="target"))
    assert whole.config["load"] * whole.config["workers"] == pytest.approx(cores / 2)
    with specimens.own_cgroup("cpu") as folder:
        if (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text("80000 100000")
        else:
            (folder / "cpu.cfs_period_us").write_text("100000")
            (folder / "cpu.cfs_quota_us").write_text("80000")
        (folder / "cgroup.procs").write_text(str(target.identity.pid))
        limited = planned(plan("stress.cpu", target, site, load="50%", of="target"))
        assert (limited.config["load"], limited.config["workers"]) == (pytest.approx(0.4), 1)
        assert "burn 50% of the 0.8 cores that it may use" in limited.describe()


def test_a_share_of_the_target_counts_its_workers_itself() -> None:
    with pytest.raises(ValueError, match="as many as it needs"):
        parse_fault("stress.cpu", {"of": "target", "workers": 4})


def test_memory_in_bytes_and_at_a_rate(target: ProcessTarget, site: Site) -> None:
    worker = planned(plan("stress.memory", target, site, amount="64MiB", leak="8MB/s", spare="5%"))
    total = machine_memory().total
    assert worker.config == {
        "amount_bytes": 64 << 20, "rate_bytes_per_s": 8_000_000, "spare_bytes": int(total * 0.05), "cgroups": [],
    }  # fmt: skip


def test_a_percentage_is_of_the_limit_that_binds_the_target(target: ProcessTarget, site: Site) -> None:
    machine = planned(plan("stress.memory", target, site, percent="1%"))
    with specimens.own_cgroup("memory") as folder:
        specimens.limit_memory(folder, 200 << 20)
        (folder / "cgroup.procs").write_text(str(target.identity.pid))
        limited = planned(plan("stress.memory", target, site, percent="50%"))
        assert limited.config["amount_bytes"] == 100 << 20
        assert machine.config["amount_bytes"] == pytest.approx(machine_memory().total * 0.01, rel=1e-6) or (
            machine.config["amount_bytes"] < machine_memory().total * 0.01  # these tests run under a limit themselves
        )


def test_memory_that_the_machine_cannot_spare_is_refused(target: ProcessTarget, site: Site) -> None:
    said = reason(plan("stress.memory", target, site, amount="1TiB"))
    assert "are available on this machine, and" in said
    assert "must stay so (`spare`)" in said


def test_disk(target: ProcessTarget, site: Site) -> None:
    worker = planned(plan("stress.disk", target, site, path=ON_DISK, fill="4MiB", write="1MB/s"))
    assert worker.config["fill_bytes"] == 4 << 20
    assert worker.config["write_bytes_per_s"] == 1_000_000
    assert worker.purpose.startswith(f"take 4 MiB in {ON_DISK} and write and sync")
    assert worker.holds == (f"disk:{os.path.realpath(ON_DISK)}",)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"path": "/no/such/folder", "fill": "1MiB"}, "cannot be used: No such file or directory"),
        ({"path": "/proc", "fill": "1MiB"}, "which is the kernel's, not a disk"),
        ({"path": ON_DISK, "fill": "16TiB"}, "must stay so (`spare`)"),
        ({"path": ON_DISK, "fill": "1MiB", "spare": "1TiB"}, "1 TiB of it must stay so"),
    ],
)
def test_a_disk_fault_that_cannot_be_is_refused(
    target: ProcessTarget, site: Site, parameters: dict[str, object], said: str
) -> None:
    assert said in reason(plan("stress.disk", target, site, **parameters))


@specimens.needs_root
def test_a_path_that_is_another_folder_for_the_target_is_refused(site: Site) -> None:
    """The target lives in a mount namespace where something else is mounted on the path."""
    script = f"mount -t tmpfs none {ON_DISK} && echo ready && exec sleep 600"
    with specimens.started("unshare", "--mount", "sh", "-c", script, stdout=subprocess.PIPE) as specimen:
        assert specimen.popen.stdout is not None
        if specimen.popen.stdout.readline() != b"ready\n":
            pytest.skip("no mount namespace can be made here")
        (found,) = find_processes(pid=specimen.pid)
        said = reason(plan("stress.disk", found, site, path=ON_DISK, fill="1MiB"))
        assert "another folder for" in said
        assert planned(plan("stress.disk", found, site, path="/", fill="1MiB"))


def test_other_targets_and_faults_are_refused(target: ProcessTarget, site: Site) -> None:
    assert "not on a route" in reason(plan("stress.cpu", ROUTE, site))
    fault = parse_fault("process.kill", {})
    assert "knows nothing of process.kill" in reason(StressInjector().plan(fault, target, site))
    assert "not a route" in reason(FileLimitInjector().plan(parse_fault("stress.fd", {}), ROUTE, site))


def test_file_descriptors(target: ProcessTarget, site: Site) -> None:
    answer = FileLimitInjector().plan(parse_fault("stress.fd", {"leave": 3}), target, site)
    assert isinstance(answer, Plan)
    assert answer.actions == (FileLimit(target.identity, "sleep", 3),)
    assert answer.recoverability == "guarded"
    assert FileLimitInjector().capable(Host.look()).works
    assert StressInjector().capable(Host.look()).works


def test_a_cgroup_that_may_not_be_entered_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an ordinary user's access(2) answers for a cgroup of root's is played."""
    with specimens.own_cgroup("cpu") as folder:
        group = find_cgroup(str(folder))
        monkeypatch.setattr("squall.injectors.stress.os.access", lambda *_: False)
        said = reason(plan("stress.cpu", group, site))
        assert said == f"this user may put nothing into the target's cgroup {folder}: run as root"
