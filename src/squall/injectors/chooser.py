"""Chooses between the mechanisms that can make a fault real, and can say why not another."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.errors import CannotInject
from squall.injectors.base import Capability, Host, Injector, Plan, Refusal, Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.faults import Fault
    from squall.targets import Target

__all__ = ["Choice", "Chooser"]

_WITHOUT = "SQUALL_WITHOUT"
"""Names of mechanisms that are not to be used, with commas: where a better one than the chooser's own is known."""
_ORDER = ("lease", "guarded", "irreversible")


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan that was taken, and why each other mechanism was not."""

    plan: Plan
    refused: tuple[Refusal, ...]


class Chooser:
    """Prefers, in this order: honours everything asked; better recoverability; better accuracy; lower cost."""

    def __init__(self, injectors: Sequence[Injector], host: Host) -> None:
        self._injectors, self._host = injectors, host

    def choose(self, fault: Fault, target: Target, site: Site) -> Choice:
        """The best plan; CannotInject with every reason when no mechanism can."""
        plans, refused = [], []
        without = os.environ.get(_WITHOUT, "").replace(",", " ").split()
        for injector in self._injectors:
            if fault.type not in injector.faults:
                continue
            if injector.mechanism in without:
                refused.append(Refusal(injector.mechanism, f"left out by {_WITHOUT}"))
                continue
            capability = injector.capable(self._host)
            if capability.works is False:
                refused.append(Refusal(injector.mechanism, capability.reason))
                continue
            answer = injector.plan(fault, target, site)
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                plans.append(answer)
        if not plans:
            reasons = (
                "; ".join(f"{one.mechanism}: {one.reason}" for one in refused)
                or "no mechanism makes it real on this machine"
            )
            raise CannotInject(f"{fault.type} cannot be injected into {target.label}: {reasons}")
        plans.sort(key=lambda plan: (_ORDER.index(plan.recoverability), plan.accuracy_ns, plan.cost))
        best = plans[0]
        worse = [Refusal(plan.mechanism, _why_not(plan, best)) for plan in plans[1:]]
        return Choice(best, (*refused, *worse))

    def survey(self, tag: str) -> list[tuple[Injector, Capability]]:
        """Every mechanism for a fault with whether it works here, the preferred first: what `squall doctor` shows."""
        rows = [(one, one.capable(self._host)) for one in self._injectors if tag in one.faults]
        return sorted(rows, key=lambda row: (row[1].works is False, _ORDER.index(row[0].recoverability)))


def _why_not(plan: Plan, best: Plan) -> str:
    if plan.recoverability != best.recoverability:
        return f"{plan.recoverability} where {best.mechanism} is {best.recoverability}"
    if plan.accuracy_ns != best.accuracy_ns:
        return f"less accurate than {best.mechanism}"
    return f"costs others more than {best.mechanism}"
