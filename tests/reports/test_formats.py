"""Markdown, JUnit XML, JSON and the terminal's summary say the same as the page, each in its own way."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from squall.errors import InputError
from squall.reports import FORMATS, load_run, render, to_html, to_json, to_junit, to_markdown, to_text, write_reports
from squall.reports.markdown import escape, fence
from tests.reports import synthetic
from tests.reports.test_html import EVIL, KINDS, evil_run

if TYPE_CHECKING:
    from pathlib import Path


def suite_of(text: str) -> ET.Element:
    suite = ET.fromstring(text).find("testsuite")  # noqa: S314 - our own text
    assert suite is not None
    return suite


def outcomes(suite: ET.Element) -> dict[str, str]:
    """Each case by its name: what stands in it beside its output."""
    return {
        case.get("name", ""): next((child.tag for child in case if child.tag != "system-out"), "passed")
        for case in suite.iter("testcase")
    }


def test_each_expectation_is_a_test_case(runs: dict[str, Path]) -> None:
    suite = suite_of(to_junit(load_run(runs["failed"])))
    assert outcomes(suite) == {
        "steady before: p95 ≤ 300 ms (load)": "passed",
        "tolerated: p95 ≤ 1.2 s (load)": "failure",
        "tolerated: errors ≤ 2 % (load)": "failure",
        "steady after: p95 ≤ 300 ms (load)": "passed",
        "run": "passed",
    }
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "5",
        "2",
        "0",
        "0",
    )


def test_what_cannot_be_told_is_an_error_and_never_green(runs: dict[str, Path]) -> None:
    found = outcomes(suite_of(to_junit(load_run(runs["healthy"]))))
    assert found["steady after: errors ≤ 0.5 % (load)"] == "error"
    assert found["run"] == "passed"


@pytest.mark.parametrize(
    ("kind", "tag", "what"),
    [
        ("aborted", "failure", "aborted"),
        ("nothing_injected", "error", "inconclusive"),
        ("cut_off", "error", "engine-died"),
        ("orphaned", "failure", "residue"),
        ("empty", "error", "inconclusive"),
    ],
)
def test_a_run_that_says_nothing_is_never_green(runs: dict[str, Path], kind: str, tag: str, what: str) -> None:
    suite = suite_of(to_junit(load_run(runs[kind])))
    problem = suite.find(f"testcase[@name='run']/{tag}")
    assert problem is not None
    assert problem.get("type") == what


@pytest.mark.parametrize("kind", KINDS)
def test_counts_add_up_and_attributes_are_those_that_build_servers_know(runs: dict[str, Path], kind: str) -> None:
    suite = suite_of(to_junit(load_run(runs[kind])))
    cases = list(suite.iter("testcase"))
    assert int(suite.get("tests", "")) == len(cases) >= 1
    for tag in ("failure", "error"):
        assert int(suite.get(f"{tag}s", "")) == len(suite.findall(f"testcase/{tag}"))
    assert set(suite.attrib) <= {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"}
    assert all(set(case.attrib) == {"name", "classname", "time"} for case in cases)
    assert all(float(case.get("time", "")) >= 0 for case in cases)


@pytest.mark.parametrize("kind", KINDS)
def test_json_is_versioned_and_plain(runs: dict[str, Path], kind: str) -> None:
    record = load_run(runs[kind])
    data = json.loads(to_json(record), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert data["squall-report"] == 1
    assert data["verdict"] == record.judgement.verdict
    assert len(data["undo"]) == len(record.undo)
    assert [series["name"] for series in data["requests"]] == [series.name for series in record.requests]


def test_json_holds_the_evidence(runs: dict[str, Path]) -> None:
    data = json.loads(to_json(load_run(runs["failed"])))
    assert data["findings"][1]["numbers"]["during"] == {"value": 10e9, "low": 9.9e9, "high": 10e9, "n": 1500}
    assert data["requests"][0]["phases"][1]["error_rate"] == pytest.approx(595 / 1200)
    assert data["faults"][0]["plans"][0]["refused"] == [["netem", "this kernel has no sch_netem module"]]
    assert data["recover_ns"] == 4_300_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_markdown_has_whole_tables(runs: dict[str, Path], kind: str) -> None:
    text = to_markdown(load_run(runs[kind]))
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    for block in tables:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
    assert text.startswith("## ")
    assert text.count("<details>") == text.count("</details>")


def test_markdown_says_what_happened(runs: dict[str, Path]) -> None:
    text = to_markdown(load_run(runs["failed"]))
    for words in ("❌ broken", "41.2 %", "120 connections", "4 steps, none open", "```yaml", "proxy"):
        assert words in text
    assert "guardian had undone everything" in to_markdown(load_run(runs["cut_off"]))


def test_a_name_in_markdown_is_no_markup_no_mention_and_no_link() -> None:
    assert escape("a|b<i>*c*[d](e)`f`") == "a&#124;b&#60;i&#62;&#42;c&#42;&#91;d&#93;&#40;e&#41;&#96;f&#96;"
    assert escape("@team fixes #12") == "@&#8203;team fixes #&#8203;12"
    assert escape("https://evil.example www.evil.example") == "https:&#8203;//evil.example w&#8203;ww.evil.example"
    assert escape("- item") == "&#45; item"
    assert "\n" not in escape("a\n\n# b")


def test_a_fence_cannot_be_closed_from_within() -> None:
    assert fence("a\n````\nb", "yaml") == "`````yaml\na\n````\nb\n`````"


def test_hostile_text_is_harmless_in_every_format(tmp_path: Path) -> None:
    evil_run(tmp_path / "run")
    record = load_run(tmp_path / "run")
    suite_of(to_junit(record))
    json.loads(to_json(record))
    table_part = to_markdown(record).split("<details>")[0]
    assert "<script" not in table_part
    assert "](javascript" not in table_part
    for name in FORMATS:
        assert "\x00" not in render(record, name)
        render(record, name).encode("utf-8")
    terminal = to_text(record, width=80, colour=True)
    assert not {"\x00", "\u202e"} & set(terminal)
    assert "alert" in terminal
    assert EVIL not in terminal


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("kind", KINDS)
def test_the_summary_fits_the_terminal(runs: dict[str, Path], kind: str, width: int) -> None:
    report = runs[kind] / "report.html"
    text = to_text(load_run(runs[kind]), report, width=width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines if str(report) not in line), text
    assert any(line.endswith(str(report)) for line in lines), "a path is whole, so that it can be copied"
    assert load_run(runs[kind]).judgement.verdict in lines[0]
    assert "\x1b" not in text


def test_the_summary_has_colours_where_asked(runs: dict[str, Path]) -> None:
    assert "\x1b[" in to_text(load_run(runs["failed"]), colour=True)


def test_a_fault_that_hit_nobody_is_said_first_in_every_format(tmp_path: Path) -> None:
    folder = synthetic.healthy(tmp_path / "run")
    events = (folder / "events.jsonl").read_text()
    (folder / "events.jsonl").write_text(
        events.replace('{"connections":40,"bytes":91234}', '{"connections":0,"bytes":0}')
    )
    record = load_run(folder)
    for text in (to_html(record), to_markdown(record), to_text(record)):
        assert "tcp.latency hit nothing" in text


def test_reports_are_written_whole_beside_the_run(runs: dict[str, Path], tmp_path: Path) -> None:
    paths = write_reports(runs["healthy"], ["html", "json", "html"], into=tmp_path)
    assert {name: path.name for name, path in paths.items()} == {"html": "report.html", "json": "report.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert stat.S_IMODE(paths["html"].stat().st_mode) == 0o644
    first = paths["html"].read_bytes()
    write_reports(runs["healthy"], ["html"], into=tmp_path)
    assert paths["html"].read_bytes() == first


def test_nothing_is_left_where_a_report_cannot_be_written(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(OSError, match=r"report\.json"):
        write_reports(runs["healthy"], ["json"], into=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_format_that_there_is_not_is_refused_with_those_there_are(runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="html, markdown, junit, json"):
        write_reports(runs["healthy"], ["pdf"])  # type: ignore[list-item]
