"""Puts a fault on a target by a mechanism's own plan, and takes it off, without an engine."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.actions import Adjustable
from squall.faults import parse_fault
from squall.injectors import INJECTORS, Host, Plan, Refusal, Site, network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.actions import Action
    from squall.injectors import Injector
    from squall.targets import Target

__all__ = ["Struck", "attach_by", "injector", "plan_of", "striking"]


_numbers = itertools.count()


def attach_by(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Have programs attached by "tcx" or "clsact"; the test is skipped where the kernel has not the one that is asked."""
    if way == "tcx" and network.attaching().by != "tcx":
        pytest.skip("this kernel has no tcx: it is there from 6.6 on")
    monkeypatch.setattr(network, "attaching", lambda: network.Attaching(way))


class Struck:
    """A fault that is on."""

    def __init__(self, done: list[tuple[Action, tuple[int, ...]]], site: Site) -> None:
        self._done, self._site = done, site

    @property
    def actions(self) -> list[Action]:
        """Its steps, in the order in which they were done."""
        return [action for action, _ in self._done]

    def become(self, tag: str, parameters: dict[str, Any], target: Target, mechanism: str = "tc") -> None:
        """Adjust it, as a run does."""
        plan = injector(mechanism, tag).plan(parse_fault(tag, parameters), target, self._site)
        assert isinstance(plan, Plan), plan
        for (action, held), new in zip(self._done, plan.actions, strict=True):
            assert action == new or (isinstance(action, Adjustable) and action.become(new, held))

    def counts(self) -> dict[str, int]:
        """The counters of all its steps together."""
        total: dict[str, int] = {}
        for action in self.actions:
            for name, count in getattr(action, "counters", dict)().items():
                total[name] = total.get(name, 0) + count
        return total


def injector(mechanism: str, tag: str) -> Injector:
    """The one of this name for this fault."""
    return next(one for one in INJECTORS if one.mechanism == mechanism and tag in one.faults)


def plan_of(
    tag: str, parameters: dict[str, Any], target: Target, mechanism: str = "tc", seed: int = 7
) -> Plan | Refusal:
    """What the mechanism says."""
    return _planned(tag, parameters, target, mechanism, _site(tag, seed))


def _site(tag: str, seed: int) -> Site:
    return Site(f"t{os.getpid()}", Path("/nonexistent"), f"{next(_numbers)}-{tag}", seed)


def _planned(tag: str, parameters: dict[str, Any], target: Target, mechanism: str, site: Site) -> Plan | Refusal:
    fault = parse_fault(tag, parameters)
    one = injector(mechanism, tag)
    capability = one.capable(Host.look())
    if capability.works is False:
        return Refusal(mechanism, capability.reason)
    return one.plan(fault, target, site)


@contextmanager
def striking(
    tag: str, parameters: dict[str, Any], target: Target, mechanism: str = "tc", seed: int = 7
) -> Iterator[Struck]:
    """The fault is on within; after it every step is undone and looked at."""
    site = _site(tag, seed)
    plan = _planned(tag, parameters, target, mechanism, site)
    assert isinstance(plan, Plan), plan
    done: list[tuple[Action, tuple[int, ...]]] = []
    try:
        for action in plan.actions:
            prepared = action.prepare()
            done.append((prepared, ()))
            done[-1] = (prepared, tuple(prepared.do()))
        yield Struck(done, site)
    finally:
        for action, held in reversed(done):
            for fd in held:
                os.close(fd)
            action.undo()
        for action, _ in done:
            look = action.verify()
            assert look.normal, look.detail
