"""The report as JUnit XML, for build servers: each expectation is a test case, and so is the run itself.

A broken expectation is a `failure`. One that cannot be told is an `error`, never a pass and never a skip: a build that
asked for evidence and got none must not be green. The case `run` fails when the run was aborted, interrupted or left
something behind, and errs when its engine died or nothing else carries an inconclusive verdict.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from squall.reports.endings import death
from squall.reports.hits import worded
from squall.reports.wording import measure, moment, one_line, percent, printable

if TYPE_CHECKING:
    from squall.events import Finding
    from squall.reports.record import RunRecord

__all__ = ["to_junit"]


def to_junit(record: RunRecord) -> str:
    """The report as XML text."""
    suite = ET.Element(
        "testsuite",
        name=one_line(record.name, 200),
        time=f"{record.length_s:.3f}",
        hostname=one_line(record.host.get("hostname", ""), 200),
    )
    if record.started_wall_ns:
        suite.set(
            "timestamp", dt.datetime.fromtimestamp(record.started_wall_ns / 1e9, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(record).items():
        ET.SubElement(properties, "property", name=name, value=one_line(value))
    for finding in record.judgement.findings:
        _case(suite, record, finding)
    _run_case(suite, record)
    for tag in ("failure", "error"):
        suite.set(f"{tag}s", str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("skipped", "0")
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = ET.Element("testsuites", {key: suite.attrib[key] for key in ("tests", "failures", "errors", "time")})
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _properties(record: RunRecord) -> dict[str, object]:
    return {
        "squall.run": record.run,
        "squall.verdict": record.judgement.verdict,
        "squall.reason": record.judgement.reason,
        "squall.seed": record.seed,
        "squall.version": record.squall,
        **({"squall.trace": record.trace_id} if record.trace_id else {}),
    }


def _case(suite: ET.Element, record: RunRecord, finding: Finding) -> None:
    name = one_line(f"{finding.expectation} ({finding.series})" if finding.series else finding.expectation, 300)
    case = ET.SubElement(suite, "testcase", classname=f"squall.{one_line(record.name, 200)}", name=name, time="0")
    tag = {"broken": "failure", "met": None}.get(finding.outcome, "error")
    if tag is not None:
        problem = ET.SubElement(case, tag, message=one_line(finding.reason), type=one_line(finding.outcome, 40))
        problem.text = _evidence(finding)


def _evidence(finding: Finding) -> str:
    lines = [one_line(finding.reason)]
    if finding.threshold is not None:
        lines.append(f"limit: {measure(finding.threshold, finding.unit)}")
    for phase, numbers in finding.numbers.items():
        low, high = measure(numbers.get("low"), finding.unit), measure(numbers.get("high"), finding.unit)
        lines.append(
            f"{phase}: {measure(numbers.get('value'), finding.unit)} (95 % interval {low} to {high}, n = {numbers.get('n', 0):.0f})"
        )
    return printable("\n".join(lines))


def _run_case(suite: ET.Element, record: RunRecord) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=f"squall.{one_line(record.name, 200)}", name="run", time=f"{record.length_s:.3f}"
    )
    tag, kind, message = _run_problem(record)
    if tag:
        ET.SubElement(case, tag, message=one_line(message), type=kind).text = printable(message)
    output = ET.SubElement(case, "system-out")
    output.text = printable("\n".join(_account(record)))


def _run_problem(record: RunRecord) -> tuple[str, str, str]:
    """Tag, type and message of what was wrong with the run itself; an empty tag where nothing was."""
    verdict, ending = record.judgement.verdict, record.ending
    outcomes = {finding.outcome for finding in record.judgement.findings}
    left = "; ".join(ending.residue) or f"{ending.open_steps} steps are not undone"
    residue = bool(ending.residue) or (ending.open_steps > 0 and ending.how != "running")
    reason = record.judgement.reason
    problems = (
        (residue, "failure", "residue", f"something is left behind: {left}"),
        (verdict == "aborted", "failure", "aborted", reason),
        (ending.how == "died", "error", "engine-died", death(ending)),
        (ending.signal is not None, "failure", "interrupted", f"interrupted by {ending.signal}"),
        (verdict == "failed" and "broken" not in outcomes, "failure", "failed", reason),
        (verdict == "inconclusive" and "unclear" not in outcomes, "error", "inconclusive", reason),
    )
    return next((problem[1:] for problem in problems if problem[0]), ("", "", ""))


def _account(record: RunRecord) -> list[str]:
    lines = [f"verdict: {record.judgement.verdict}", record.judgement.reason]
    lines += [f"{fault.type}: hits {worded(fault.hits) or 'not counted'}" for fault in record.faults]
    for series in record.requests:
        rates = ", ".join(f"{stats.phase} {percent(stats.error_rate)}" for stats in series.phases if stats.requests)
        lines.append(f"{series.name}: errors {rates}")
    return lines + [f"{moment(item.at_s)} {item.title} {item.detail}".rstrip() for item in record.timeline]
