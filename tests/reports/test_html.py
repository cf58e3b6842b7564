"""The page is whole, alone, harmless whatever a run holds, and small."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from squall import events as ev
from squall.reports import comparing, load_run, to_html
from tests.reports import synthetic
from tests.reports.markup import read

if TYPE_CHECKING:
    from pathlib import Path

EVIL = '</script><script>alert(1)</script><img src=x onerror=alert(2)>"\' onload="x\u202e\x00\ud800`|[a](javascript:1)'
KINDS = ("healthy", "failed", "aborted", "nothing_injected", "cut_off", "orphaned", "empty")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed_and_asks_nothing_of_the_network(runs: dict[str, Path], kind: str) -> None:
    page = read(to_html(load_run(runs[kind])))
    assert page.problems == []
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_policy_allows_the_page_s_own_script_and_style_and_nothing_else(runs: dict[str, Path]) -> None:
    text = to_html(load_run(runs["healthy"]))
    (policy,) = (a["content"] or "" for t, a in read(text).elements if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("healthy", ["passed", "40", "connections", "tolerated p95 ≤ 1.2 s", "abort p95 > 5 s", "netem", "lease", "squall run"]),
        ("failed", ["failed", "3 pulses", "41.2 %", "broken", "4.3 s"]),
        ("aborted", ["aborted", "ceiling", "errors 81 %"]),
        ("nothing_injected", ["inconclusive", "never on", "Nothing on the machine was changed"]),
        ("cut_off", ["inconclusive", "engine died", "guardian had undone everything", "nothing to undo"]),
        ("orphaned", ["squall recover", "kill -CONT", "not undone yet"]),
        ("empty", ["inconclusive", "No requests were measured", "Nothing was injected"]),
    ],
)  # fmt: skip
def test_the_page_says_what_happened(runs: dict[str, Path], kind: str, words: list[str]) -> None:
    text = read(to_html(load_run(runs[kind]))).words
    assert [word for word in words if word not in text] == []


def test_lines_are_broken_where_nothing_was_measured_and_end_where_the_samples_do(tmp_path: Path) -> None:
    run = synthetic.RunWriter(tmp_path / "run")
    synthetic.opening(run)
    for at_s in (*range(5), *range(25, 30)):
        run.request("load", at_s, 0.05)
    run.event(30, ev.RunFinished(0))
    run.write_samples()
    paths = [
        a["d"] or "" for t, a in read(to_html(load_run(tmp_path / "run"))).elements if a.get("class") == "line p95"
    ]
    assert [path.count("M") for path in paths] == [2, 2]


def evil_run(folder: Path) -> None:
    """Every text in the run's files is hostile."""
    run = synthetic.RunWriter(folder, run=EVIL.replace("/", ""))
    run.event(0, ev.RunStarted(EVIL, 7, EVIL, {EVIL: EVIL}, synthetic.DOCUMENT))
    run.event(1, ev.TargetsSelected(EVIL, 1, [{EVIL: EVIL, "label": EVIL, "nested": {EVIL: [EVIL]}}]))
    run.event(
        1,
        ev.PlanChosen(
            EVIL,
            EVIL,
            EVIL,
            EVIL,
            EVIL,
            EVIL,
            [EVIL],
            [EVIL],
            [EVIL],
            [{"mechanism": EVIL, "reason": EVIL}],
            {EVIL: EVIL},
        ),
    )
    run.event(2, ev.FaultStarted(EVIL, 1))
    run.event(2, ev.ActionDone(0, EVIL, EVIL, EVIL))
    run.event(3, ev.FaultHits(EVIL, {EVIL: 3}))
    run.event(3, ev.Problem(EVIL, EVIL))
    run.event(3, ev.LoadBehind(1, 1, EVIL))
    run.event(3, ev.Interrupted(EVIL))
    run.event(3, ev.AbortTriggered("ceiling", EVIL))
    run.event(4, ev.ActionUndone(0, EVIL, EVIL, EVIL, verified=False, detail=EVIL, by=EVIL))
    run.event(4, ev.FaultEnded(EVIL, 1))
    numbers = {"before": {"value": 1.0, "low": 0.0, "high": 2.0, "n": 3}}
    run.event(5, ev.VerdictReached(EVIL, EVIL, [ev.Finding(EVIL, EVIL, EVIL, EVIL, 1.0, "ns", numbers)]))  # type: ignore[arg-type]
    run.event(5, ev.UnknownEvent(EVIL, {}))
    run.event(6, ev.RunFinished(1, [EVIL]))
    run.series = (EVIL.replace("\ud800", ""), f"{EVIL}.rss".replace("\ud800", ""))
    for second in range(20):
        run.request(run.series[0], second, 0.1)
        run.value(run.series[1], second, second)
    run.write_samples()
    (folder / "experiment.yaml").write_bytes(
        (EVIL.replace("\ud800", "") + '\nname: "' + "<b>&" + '"\n').encode() + b"\xff\xfe"
    )


def test_nothing_in_a_run_becomes_markup(tmp_path: Path) -> None:
    evil_run(tmp_path / "run")
    text = to_html(load_run(tmp_path / "run"))
    text.encode("utf-8")
    page = read(text)
    assert page.problems == []
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert not re.search("[\x00-\x08\u202e\ud800]", text)
    assert "alert(1)" in page.words


def test_the_comparison_of_hostile_runs_is_harmless_too(tmp_path: Path) -> None:
    evil_run(tmp_path / "a")
    evil_run(tmp_path / "b")
    two = comparing.load(tmp_path / "a", tmp_path / "b")
    page = read(comparing.to_html(two))
    assert page.problems == []
    assert [tag for tag, _ in page.elements].count("script") == 2
    json.loads(comparing.to_json(two))
    assert "\x00" not in comparing.to_text(two) + comparing.to_markdown(two)


def test_a_typical_page_is_small(runs: dict[str, Path]) -> None:
    assert len(to_html(load_run(runs["failed"])).encode()) < 300_000


@pytest.mark.slow
def test_a_page_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """An hour at 1,000 requests a second with 890 pulses."""
    folder = synthetic.long(tmp_path / "long")
    began = time.monotonic()
    record = load_run(folder)
    text = to_html(record)
    assert time.monotonic() - began < 120
    assert record.main is not None
    assert record.main.requests == 3_600_000
    assert len(text.encode()) < 1_000_000
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert all(len(chart["rows"]) <= 2000 for chart in data)
    assert read(text).problems == []


def test_the_document_loses_no_character(runs: dict[str, Path]) -> None:
    source = (runs["healthy"] / "experiment.yaml").read_text()
    record = dataclasses.replace(
        load_run(runs["healthy"]), source=source + "x: 'it''s'  # <tag> & \"more\"\n- 12.5%: [a, b]\n"
    )
    page = read(to_html(record))
    assert record.source in "".join(page.text)
