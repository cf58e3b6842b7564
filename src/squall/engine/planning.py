"""Resolves the targets of an experiment, holds them against the limits, and chooses how each fault is made real.

Nothing is touched: the plan is what `--dry-run` prints.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from squall.actions import Hijack
from squall.errors import CannotInject, InputError, TargetError
from squall.faults import FAULTS
from squall.faults.grpc import GrpcFault
from squall.faults.http import HttpFault
from squall.injectors import Choice, Chooser, Site
from squall.targets import (
    CgroupTarget,
    NetnsTarget,
    ProcessTarget,
    Protected,
    RouteTarget,
    Target,
    find_cgroup,
    find_containers,
    find_middleware,
    find_netns,
    find_processes,
    group_protection,
    pick,
    protection,
)
from squall.targets.route import split_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.actions import Action
    from squall.experiment.model import Experiment, FaultStep, Targets
    from squall.recovery import RunFolder

__all__ = ["PlannedFault", "plan_experiment", "plan_fault", "resolve"]


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of an experiment with what it will hit and how: one choice for each selected target."""

    id: str
    step: FaultStep
    matched: int
    targets: tuple[Target, ...]
    choices: tuple[Choice, ...]
    site: Site

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every step of it, in the order it is done."""
        return tuple(action for choice in self.choices for action in choice.plan.actions)

    @property
    def setup(self) -> tuple[Action, ...]:
        """What must be there from before the baseline."""
        return tuple(action for choice in self.choices for action in choice.plan.setup)


def resolve(targets: Targets, seed: str, protected: Protected) -> tuple[int, list[Target]]:
    """How many match, and which are selected; TargetError for none, too many, or a protected one.

    What is protected is refused, not left out: a selector that matches it was not meant as it was written.
    """
    if targets.route is not None:
        return 1, [RouteTarget(targets.route.listen, targets.route.upstream)]
    if targets.cgroup is not None:
        found: list[Target] = [find_cgroup(targets.cgroup)]
    elif targets.container is not None:
        found = list(find_containers(targets.container))
    elif targets.netns is not None:
        found = [find_netns(targets.netns)]
    elif targets.middleware is not None:
        found = [find_middleware(targets.middleware)]
    else:
        assert targets.process is not None  # noqa: S101 - the model allows exactly one
        query = targets.process
        found = list(find_processes(pid=query.pid, command=query.command, port=query.port, unit=query.unit))
    chosen = pick(found, targets.mode, targets.value, seed=seed, most=targets.most)
    for target in chosen:
        _refuse_protected(target, protected)
    return len(found), chosen


def _refuse_protected(target: Target, protected: Protected) -> None:
    if isinstance(target, ProcessTarget):
        reason = protection(target, protected)
        if reason is not None:
            raise TargetError(f"{reason}: it is never hit")
    elif isinstance(target, CgroupTarget | NetnsTarget):
        if not target.alive():
            raise TargetError(f"{target.label} is gone")
        reason = group_protection(target, protected)
        if reason is not None:
            raise TargetError(f"{reason}: it is never hit")


def plan_fault(
    id_: str, step: FaultStep, seed: int, chooser: Chooser, run: RunFolder, protected: Protected
) -> PlannedFault:
    """Resolve and choose for one fault; CannotInject (nothing was touched) with every reason."""
    if step.targets.kind not in step.fault.targets:
        able = [tag for tag, model in FAULTS.items() if step.targets.kind in model.targets]
        raise InputError(
            f"{step.fault.type} happens to a {' or '.join(step.fault.targets)}, not to a {step.targets.kind}; that has {', '.join(able)}"
        )
    draw = random.Random(f"{seed}:{id_}")  # noqa: S311 - replayed from a seed, not a secret
    site = Site(run.id, run.path, id_, draw.getrandbits(62))
    matched, targets = resolve(step.targets, f"{seed}:{id_}:targets", protected)
    choices = tuple(chooser.choose(step.fault, _covering(target, step, protected), site) for target in targets)
    return PlannedFault(id_, step, matched, tuple(targets), choices, site)


def _covering(target: Target, step: FaultStep, protected: Protected) -> Target:
    if isinstance(target, ProcessTarget) and getattr(step.fault, "descendants", False):
        _refuse_protected(target.with_descendants(), protected)
    return target


def plan_experiment(experiment: Experiment, chooser: Chooser, run: RunFolder) -> list[PlannedFault]:
    """Every fault of an experiment, in the document's order."""
    protected = Protected.load()
    planned = [
        plan_fault(f"{number}-{step.fault.type}", step, experiment.seed, chooser, run, protected)
        for number, step in enumerate(experiment.faults)
    ]
    _refuse_overlaps(planned)
    _refuse_http_faults_on_tls(experiment, planned)
    return planned


def _refuse_http_faults_on_tls(experiment: Experiment, planned: Iterable[PlannedFault]) -> None:
    """The proxy passes TLS on as it is: it cannot read the requests in it, so it must not promise to fault them."""
    requests = [one.http for one in experiment.steady_state if one.http is not None]
    requests += [experiment.load.http] if experiment.load is not None else []
    ports = {(url.hostname, url.port or 443) for one in requests if (url := urlsplit(one.url)).scheme == "https"}
    for fault in planned:
        if not isinstance(fault.step.fault, HttpFault | GrpcFault):
            continue
        for target, choice in zip(fault.targets, fault.choices, strict=True):
            routed = isinstance(target, RouteTarget) and split_address(target.listen) in ports
            if routed or _led_ports(choice) & {port for _, port in ports}:
                raise CannotInject(
                    f"{fault.id}: {target.label} is used with https, and Squall has no certificate to read it by: "
                    "fault what is behind the end of the TLS, or use a tcp.* fault"
                )


def _led_ports(choice: Choice) -> set[int]:
    """The listening ports of which connections are led to the proxy."""
    hijacks = (action for action in choice.plan.actions if isinstance(action, Hijack))
    return {port for hijack in hijacks for _, port, own in hijack.config.get("doors", ()) if own}


def _refuse_overlaps(planned: Iterable[PlannedFault]) -> None:
    """Two faults of one run that hold the same thing at the same time would undo each other's."""
    held: list[tuple[PlannedFault, set[str]]] = []
    for fault in planned:
        objects = {
            name for action in fault.actions for name in action.objects() if action.recoverability != "irreversible"
        }
        begin, end = int(fault.step.after), int(fault.step.after) + int(fault.step.duration)
        for other, others in held:
            overlap = begin < int(other.step.after) + int(other.step.duration) and int(other.step.after) < end
            both = objects & others
            if overlap and both:
                raise TargetError(
                    f"{other.id} and {fault.id} would hold the same thing at the same time ({min(both)}): "
                    "let one begin after the other ends"
                )
        held.append((fault, objects))
