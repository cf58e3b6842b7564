"""Two runs side by side, aligned at the moment when their faults began."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from squall.reports import comparing
from tests.reports.markup import read

if TYPE_CHECKING:
    from pathlib import Path


def test_what_got_worse_is_said_first(runs: dict[str, Path]) -> None:
    text = comparing.to_text(comparing.load(runs["healthy"], runs["failed"]))
    lines = text.splitlines()
    assert "worse" in lines[0]
    first = next(line for line in lines if line.startswith("load"))
    assert first.split()[1] == "during"
    assert first.endswith("worse")
    assert "passed" in text
    assert "failed" in text


def test_a_run_differs_from_itself_in_nothing(runs: dict[str, Path]) -> None:
    two = comparing.load(runs["failed"], runs["failed"])
    assert {difference.change for difference in two.comparison.differences} <= {"same", "unclear"}
    assert comparing.to_text(two).startswith("Nothing differs")


def test_json_holds_each_difference_with_its_interval(runs: dict[str, Path]) -> None:
    data = json.loads(comparing.to_json(comparing.load(runs["healthy"], runs["failed"])))
    assert data["squall-comparison"] == 1
    (p95,) = (d for d in data["differences"] if (d["series"], d["phase"], d["what"]) == ("load", "during", "p95"))
    assert p95["change"] == "worse"
    assert p95["low"] <= p95["value"] <= p95["high"]
    assert p95["value"] == p95["b"]["value"] - p95["a"]["value"]


def test_markdown_has_whole_tables(runs: dict[str, Path]) -> None:
    text = comparing.to_markdown(comparing.load(runs["healthy"], runs["failed"]))
    for block in (block for block in text.split("\n\n") if block.startswith("| ")):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
    assert "❌ worse" in text


def test_the_page_shows_both_on_one_axis(runs: dict[str, Path]) -> None:
    text = comparing.to_html(comparing.load(runs["healthy"], runs["aborted"]))
    page = read(text)
    assert page.problems == []
    charts = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    a, b = charts[:2]
    assert (a["start"] - a["zero"], a["end"] - a["zero"]) == (b["start"] - b["zero"], b["end"] - b["zero"])
    windows = [attributes["x"] for _, attributes in page.elements if (attributes.get("class") or "").startswith("bar")]
    assert len(set(windows)) == 1, "the faults begin at the same place"


def test_runs_with_nothing_in_common_are_set_side_by_side_all_the_same(runs: dict[str, Path]) -> None:
    two = comparing.load(runs["healthy"], runs["empty"])
    assert read(comparing.to_html(two)).problems == []
    assert "series only in one" in comparing.to_text(two)


def test_a_run_that_was_cut_off_says_nothing_of_recovery(runs: dict[str, Path]) -> None:
    assert "recovery is" not in comparing.to_text(comparing.load(runs["cut_off"], runs["healthy"]))
