"""The judgement of one run: every threshold with its evidence, and one of four verdicts.

Precedence, the first that applies:
1. aborted: the ceiling, or something that makes a run safe, ended it.
2. inconclusive, because the experiment was not carried out as written: the steady state did not hold before, nothing
   was injected, the run was interrupted, a lease lapsed, a fault hit nothing, or the load could not be sent when intended. Failures seen in
   such a run may be the experiment's own.
3. failed: some threshold is broken.
4. inconclusive: a target was lost, or some threshold is unclear, or nothing was judged. Never a pass by lack of data.
5. passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from squall.analysis.findings import Evidence
from squall.analysis.patterns import pattern_findings
from squall.analysis.steady import check_steady_state
from squall.events import VerdictReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.analysis.windows import Timeline
    from squall.events import Finding, Verdict
    from squall.experiment.model import Experiment
    from squall.probes.samples import Series

__all__ = ["Facts", "judge"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine knows about a run beside its samples; each a reason in words, empty when it is not so.

    `targets_lost` names targets that went away although no fault was meant to end them.
    """

    aborted: str = ""
    not_steady: str = ""
    not_injected: str = ""
    interrupted: str = ""
    lease_lapsed: str = ""
    never_hit: str = ""
    load_behind: str = ""
    targets_lost: tuple[str, ...] = ()


def judge(
    experiment: Experiment, series: Mapping[str, Series], timeline: Timeline, facts: Facts = Facts()
) -> VerdictReached:
    """The verdict on a run, with every finding; the same samples and seed give the same verdict. Never raises for any samples."""
    evidence = Evidence(experiment, series, timeline)
    if not timeline.faults:
        findings = evidence.baseline()
        gate = check_steady_state(experiment, series, timeline)
        not_steady = facts.not_steady or ("" if gate.holds else gate.detail)
        facts = replace(facts, not_steady=not_steady, not_injected=facts.not_injected or "no fault was on")
        return VerdictReached(*_verdict(findings, facts), findings)
    findings = evidence.tolerated() + evidence.steady_again() + pattern_findings(experiment, series, timeline)
    verdict, reason = _verdict(findings, facts)
    return VerdictReached(verdict, reason, findings, evidence.detected_ns, evidence.recovered_ns)


def _verdict(findings: list[Finding], facts: Facts) -> tuple[Verdict, str]:
    if facts.aborted:
        return "aborted", facts.aborted
    unsound = _unsound(facts)
    if unsound:
        return "inconclusive", unsound
    broken, unclear = (_listed([f for f in findings if f.outcome == outcome]) for outcome in ("broken", "unclear"))
    if broken:
        return "failed", broken
    if facts.targets_lost:
        return "inconclusive", f"a target was lost: {', '.join(facts.targets_lost)}"
    if unclear or not findings:
        return "inconclusive", unclear or "nothing was expected, so nothing was judged"
    return "passed", f"all {len(findings)} thresholds were kept"


def _unsound(facts: Facts) -> str:
    """Why the experiment was not carried out as written; empty when it was."""
    for said, reason in (
        ("the steady state did not hold before the fault", facts.not_steady),
        ("nothing was injected", facts.not_injected),
        ("the run was interrupted", facts.interrupted),
        ("a lease lapsed while the fault should have been on", facts.lease_lapsed),
        ("a fault was on and never hit anything", facts.never_hit),
        ("the load could not be sent when intended", facts.load_behind),
    ):
        if reason:
            return f"{said}: {reason}"
    return ""


def _listed(findings: list[Finding]) -> str:
    if not findings:
        return ""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{first.expectation}: {first.reason}{more}"
