"""A run's folder becomes a record, whatever became of the run."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from squall import events as ev
from squall.errors import InputError
from squall.reports import load_run
from squall.reports.record import Threshold
from tests.reports import synthetic

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_that_passed_is_told_whole(runs: dict[str, Path]) -> None:
    record = load_run(runs["healthy"])
    assert (record.name, record.seed, record.judgement.verdict) == ("inventory-is-slow", 7, "passed")
    assert record.ending.how == "finished"
    assert record.ending.exit_status == 0
    assert record.injected is not None
    assert (record.injected.start_s, record.injected.end_s) == (10.0, 40.0)
    (fault,) = record.faults
    assert fault.hits == {"connections": 40, "bytes": 91_234}
    assert fault.targets[0].title == "route 127.0.0.1:18083 -> 127.0.0.1:8083"
    assert fault.plans[0].refused == (("netem", "this kernel has no sch_netem module"),)
    assert [span.stage for span in record.stages] == ["define", "inject", "monitor", "recover"]
    assert all(step.state == "undone" and step.verified for step in record.undo)
    assert record.notes == ()


def test_phases_are_counted_exactly(runs: dict[str, Path]) -> None:
    main = load_run(runs["healthy"]).main
    assert main is not None
    assert main.name == "load"
    assert [stats.requests for stats in main.phases] == [500, 1500, 750]
    assert sum(bucket.requests for bucket in main.buckets) == 2750
    assert sum(stats.errors for stats in main.phases) == sum(bucket.errors for bucket in main.buckets)


def test_what_lies_between_two_pulses_is_no_phase(runs: dict[str, Path]) -> None:
    record = load_run(runs["failed"])
    assert record.main is not None
    assert [stats.requests for stats in record.main.phases] == [500, 3 * 8 * 50, 900]
    assert record.faults[0].pulses == 3


def test_gauges_and_looks_are_no_requests(runs: dict[str, Path]) -> None:
    record = load_run(runs["healthy"])
    assert {series.name for series in record.requests} == {"load", "orders"}
    assert {series.name for series in record.gauges} == {
        "stock",
        "stock.rss",
        "stock.cpu",
        "stock.fds",
        "stock.threads",
    }


def test_limits_are_those_that_the_analysis_judges_by(runs: dict[str, Path]) -> None:
    thresholds = load_run(runs["healthy"]).thresholds
    assert Threshold("steady", "p95", 300e6, "orders") in thresholds
    assert Threshold("tolerate", "p95", 1.2e9, "load") in thresholds
    assert Threshold("abort", "error-rate", 0.5, "load") in thresholds


def test_an_engine_that_died_is_said_with_who_recovered(runs: dict[str, Path]) -> None:
    record = load_run(runs["cut_off"])
    assert record.ending.how == "died"
    assert record.ending.recovered_by == "guardian"
    assert record.ending.open_steps == 0
    assert record.ending.after_death_s is not None
    assert 0 < record.ending.after_death_s < 5
    assert record.judgement.verdict == "inconclusive"
    assert not record.judgement.by_analysis
    assert "engine died" in record.judgement.reason
    assert "guardian had undone everything" in record.judgement.reason
    (fault,) = record.faults
    assert fault.windows[0].end_known
    assert 21.4 < fault.windows[0].end_s < 27
    assert any("cut off" in note for note in record.notes)
    assert {step.description: step.state for step in record.undo} == {
        next(step.description for step in record.undo if "SIGSTOP" in step.description): "undone",
        next(step.description for step in record.undo if "SIGKILL" in step.description): "irreversible",
    }


def test_what_nobody_undid_is_open_and_says_how_to_undo_it(runs: dict[str, Path]) -> None:
    record = load_run(runs["orphaned"])
    assert record.ending.how == "died"
    assert record.ending.open_steps == 1
    assert "squall recover" in record.judgement.reason
    (pause,) = (step for step in record.undo if step.state == "open")
    assert pause.by_hand.startswith("kill -CONT ")
    assert not record.faults[0].windows[0].end_known


def test_a_run_that_is_on_is_told_as_such(tmp_path: Path) -> None:
    folder = synthetic.cut_off(tmp_path / "on", recovered=False)
    header, rest = (folder / "journal.jsonl").read_text().split("\n", 1)
    data = json.loads(header)
    data["engine"]["start_ticks"] -= 1  # this process again: it lives
    (folder / "journal.jsonl").write_text(json.dumps(data) + "\n" + rest)
    record = load_run(folder)
    assert record.ending.how == "running"
    assert "not over" in record.judgement.reason


def test_an_aborted_run_says_why(runs: dict[str, Path]) -> None:
    record = load_run(runs["aborted"])
    assert record.judgement.verdict == "aborted"
    assert record.abort is not None
    assert record.abort.cause == "ceiling"


def test_an_engine_that_died_after_its_ceiling_is_aborted(tmp_path: Path) -> None:
    run = synthetic.RunWriter(tmp_path / "run")
    synthetic.opening(run)
    run.event(12.0, ev.AbortTriggered("ceiling", "p95 6 s"))
    record = load_run(tmp_path / "run")
    assert record.judgement.verdict == "aborted"
    assert "p95 6 s" in record.judgement.reason
    assert "engine died" in record.judgement.reason


def test_a_run_without_any_fault_has_no_window(runs: dict[str, Path]) -> None:
    record = load_run(runs["nothing_injected"])
    assert record.injected is None
    assert record.main is not None
    assert [stats.requests for stats in record.main.phases] == [500, 0, 0]


def test_empty_files_are_a_run_that_never_began(runs: dict[str, Path]) -> None:
    record = load_run(runs["empty"])
    assert record.ending.how == "never-began"
    assert record.judgement.verdict == "inconclusive"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"events\.jsonl"):
        load_run(tmp_path)


def test_events_of_a_newer_squall_are_counted_and_left_out(tmp_path: Path) -> None:
    run = synthetic.RunWriter(tmp_path / "run")
    synthetic.opening(run)
    run.event(1.0, ev.UnknownEvent("quantum-fault", {"spin": "up"}))
    run.raw(
        '{"run":"r","seq":7,"wall_ns":1,"mono_ns":2,"kind":"fault-hits","fault":"f","counters":["not","a","mapping"]}\n'
    )
    run.raw("\xff\xfe not json\n")
    run.event(2.0, ev.RunFinished(0))
    record = load_run(tmp_path / "run")
    assert any("quantum-fault (1)" in note for note in record.notes)
    assert any(note.startswith("2 lines") for note in record.notes)
    assert record.ending.how == "finished"


def test_a_newer_document_is_shown_without_its_lines(tmp_path: Path) -> None:
    run = synthetic.RunWriter(tmp_path / "run")
    synthetic.opening(run, {"apiVersion": "squall.dev/v9", "spec": {"steadyState": {"unheard": "of"}}})
    run.event(2.0, ev.RunFinished(0))
    assert load_run(tmp_path / "run").thresholds == ()


@pytest.mark.parametrize("name", ["samples.bin", "journal.jsonl"])
def test_a_damaged_file_is_a_note(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(runs["cut_off"], tmp_path / "run")
    (folder / name).write_bytes(b"\x00\xff garbage\n" * 3)
    notes = load_run(folder).notes
    assert any("cannot be read" in note for note in notes)


@pytest.mark.slow
def test_the_events_may_end_at_any_byte(runs: dict[str, Path], tmp_path: Path) -> None:
    """As a killed engine leaves them: some prefix of what it wrote."""
    folder = shutil.copytree(runs["failed"], tmp_path / "run")
    whole = (folder / "events.jsonl").read_bytes()
    for length in range(0, len(whole), 97):
        (folder / "events.jsonl").write_bytes(whole[:length])
        record = load_run(folder)
        assert record.judgement.verdict in ("inconclusive", "failed")
        assert record.ending.how in ("died", "never-began", "finished")
