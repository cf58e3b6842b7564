"""What is measured when a document measures nothing: probes derived from the targets, without the fault's own declared effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.errors import TargetError
from squall.experiment.model import Expectation
from squall.faults.process import Crash, Kill, Pause
from squall.faults.tcp import Down
from squall.kernel import proc
from squall.probes.spec import ProcessQuery
from squall.targets import CgroupTarget, MiddlewareTarget, NetnsTarget, ProcessTarget, RouteTarget
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from squall.engine.planning import PlannedFault
    from squall.faults import Fault

__all__ = ["derived_expectations"]

_EVERY = Duration.parse("50ms")
_ERRORS = Ratio.parse("5%")
"""Coarser than the default of 0.5 %: what a probe sampled 20 times a second can decide within seconds."""
_PROBES_MOST = 8
_PROCESSES_MOST = 64
"""So many processes of a group are asked where they listen."""


def derived_expectations(planned: Iterable[PlannedFault]) -> tuple[Expectation, ...]:
    """For a process that it is alive and that its ports answer, for a route that it answers; a few of them.

    For a cgroup, a container or a network namespace: the same of the processes in it, the longest-lived ones first.

    TargetError for one in which there is no process: then nothing would be measured.

    A killed process is not alive and a paused one does not answer: that is declared, so it is not counted against it.
    """
    found: dict[str, Expectation] = {}
    for fault in planned:
        for target in fault.targets:
            if isinstance(target, ProcessTarget):
                for one in _of_process(target, fault.step.fault):
                    found.setdefault(one.name, one)
            elif isinstance(target, CgroupTarget | NetnsTarget):
                for one in _of_group(target):
                    found.setdefault(one.name, one)
            elif isinstance(target, MiddlewareTarget):
                for one in _of_pids(list(target.pids)):
                    found.setdefault(one.name, one)
            elif isinstance(target, RouteTarget) and not isinstance(fault.step.fault, Down):
                name = f"answers-{target.listen.rpartition(':')[2]}"  # through the route, as its clients go
                found.setdefault(name, _answers(name, target.listen))
    return tuple(found.values())[:_PROBES_MOST]


def _of_process(target: ProcessTarget, fault: Fault) -> Iterator[Expectation]:
    pid = target.identity.pid
    if not isinstance(fault, Kill | Crash):
        yield Expectation(name=f"alive-{pid}", process=ProcessQuery(pid=pid), every=_EVERY, error_rate=_ERRORS)
    if isinstance(fault, Pause):
        return
    for address in _listens_on(pid):
        yield _answers(f"answers-{address.rpartition(':')[2]}", address)


def _of_group(target: CgroupTarget | NetnsTarget) -> Iterator[Expectation]:
    """The first process that is in it stands for it: what it starts may end as it likes."""
    found = list(_of_pids(target.processes()))
    if not found:
        raise TargetError(f"there is no process in {target.label}, so nothing could be watched: name a probe")
    yield from found


def _of_pids(pids: list[int]) -> Iterator[Expectation]:
    stats = [stat for pid in pids if (stat := proc.read_stat(pid)) is not None and not stat.gone]
    stats.sort(key=lambda stat: (stat.start_ticks, stat.pid))
    for stat in stats[:1]:
        yield Expectation(
            name=f"alive-{stat.pid}", process=ProcessQuery(pid=stat.pid), every=_EVERY, error_rate=_ERRORS
        )
    for stat in stats[:_PROCESSES_MOST]:
        for address in _listens_on(stat.pid):
            yield _answers(f"answers-{address.rpartition(':')[2]}", address)


def _answers(name: str, address: str) -> Expectation:
    return Expectation(name=name, tcp=address, every=_EVERY, timeout=Duration.parse("2s"), error_rate=_ERRORS)


def _listens_on(pid: int) -> list[str]:
    return [f"127.0.0.1:{port}" for port in proc.listening_ports(pid)][:_PROBES_MOST]
