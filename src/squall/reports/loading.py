"""From a run's folder to its `RunRecord`, whatever became of the run.

Everything is optional but one of the files: a torn or damaged line is left out and counted, an absent file is an empty
one. Where the events end without the run's end, the journal tells whether the engine died and who undid what.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squall.errors import InputError, JournalError
from squall.events import decode
from squall.probes.samples import read_samples
from squall.reports.endings import ending_of, judgement_of
from squall.reports.journal import UndoLog, read_undo_log
from squall.reports.record import FaultRecord, RunRecord, StageSpan, Window
from squall.reports.series import gauge_series, is_gauge, request_series
from squall.reports.story import Story
from squall.reports.thresholds import looks_of, read_thresholds, understood

if TYPE_CHECKING:
    from squall.probes.samples import Series
    from squall.reports.record import GaugeSeries, RequestSeries
    from squall.reports.story import FaultStory

__all__ = ["load_run", "read_columns"]

_FILES = ("events.jsonl", "samples.bin", "journal.jsonl", "experiment.yaml")
_LINE_MAX = 8 << 20
_SOURCE_MAX = 256 << 10
_WINDOWS_MAX = 300


def load_run(folder: Path) -> RunRecord:
    """Read a run's folder; InputError where it is no run's folder, JournalError where a newer Squall's format is in it."""
    folder = Path(folder)
    if not any((folder / name).is_file() for name in _FILES):
        raise InputError(f"{folder} is not a run's folder: it holds none of {', '.join(_FILES)}")
    story, notes = _read_story(folder / "events.jsonl")
    start_ns = story.first.mono_ns if story.first else 0
    journal = read_undo_log(folder / "journal.jsonl", story)
    columns, sample_notes = read_columns(folder / "samples.bin")
    if not story.first:
        start_ns = min((min(series.time_ns) for series in columns), default=0)
    length_s = max([story.last_s, journal.last_s, *((max(series.time_ns) - start_ns) / 1e9 for series in columns)])
    ending = ending_of(story, journal, length_s)
    faults = tuple(_fault(fault, ending.last_sign_s, journal, length_s) for fault in story.faults.values())
    windows = [window for fault in faults for window in fault.windows]
    document: dict[str, Any] = story.started.document if story.started else {}
    experiment = understood(document)
    requests, gauges = _sorted_series(columns, looks_of(experiment), start_ns, windows)
    return RunRecord(
        folder=folder,
        run=story.first.run if story.first else folder.name,
        name=str(story.started.name) if story.started else folder.name,
        description=str(_within(document, "spec", "description") or ""),
        seed=int(story.started.seed) if story.started else 0,
        squall=str(story.started.squall) if story.started else "",
        host=story.started.host if story.started else {},
        source=_read_source(folder / "experiment.yaml"),
        document=document,
        started_wall_ns=story.first.wall_ns if story.first else journal.started_wall_ns,
        started_mono_ns=start_ns,
        length_s=length_s,
        judgement=story.judgement or judgement_of(story, ending),
        ending=ending,
        abort=story.abort,
        stages=_stages(story, length_s),
        faults=faults,
        undo=journal.steps,
        timeline=tuple(sorted((*story.moments, *journal.moments), key=lambda moment: moment.at_s)),
        requests=requests,
        gauges=gauges,
        thresholds=read_thresholds(experiment),
        trace_id=story.trace[0],
        trace_url=story.trace[1],
        load_behind=story.load_behind,
        notes=(*notes, *journal.notes, *sample_notes),
    )


def _read_story(path: Path) -> tuple[Story, list[str]]:
    story, damaged, torn = Story(), 0, False
    if path.is_file():
        with path.open("rb") as file:
            while line := file.readline(_LINE_MAX):
                try:
                    stamped = decode(line.decode("utf-8"))
                    story.take(stamped)
                except (ValueError, TypeError, OverflowError, AttributeError, KeyError):
                    torn = not line.endswith(b"\n")
                    damaged += not torn
    notes = []
    if torn:
        notes.append("The last event was cut off while it was written; it is left out.")
    if damaged:
        notes.append(f"{damaged} lines of events.jsonl cannot be read and are left out.")
    if story.unknown:
        kinds = ", ".join(f"{kind} ({number})" for kind, number in sorted(story.unknown.items()))
        notes.append(f"Events of kinds that this Squall does not know are left out: {kinds}.")
    if story.left_out:
        notes.append(
            f"The timeline shows the first {len(story.moments)} entries; {story.left_out} more are in events.jsonl."
        )
    return story, notes


def read_columns(path: Path) -> tuple[list[Series], list[str]]:
    """The series of a run that have samples, and what of the file could not be read."""
    if not path.is_file():
        return [], ["There is no samples.bin: nothing was measured, or it is lost."]
    try:
        return [series for series in read_samples(path).values() if len(series)], []
    except JournalError as error:
        return [], [f"The measurements cannot be read: {error}."]
    except (IndexError, UnicodeDecodeError, json.JSONDecodeError) as error:
        return [], [f"The measurements cannot be read: samples.bin is damaged ({error})."]


def _read_source(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_SOURCE_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _sorted_series(
    columns: list[Series], looked_at: frozenset[str], start_ns: int, windows: list[Window]
) -> tuple[tuple[RequestSeries, ...], tuple[GaugeSeries, ...]]:
    looks = [series for series in columns if is_gauge(series) or series.name in looked_at]
    requests = [series for series in columns if not (is_gauge(series) or series.name in looked_at)]
    return (
        tuple(request_series(series, start_ns, windows) for series in requests),
        tuple(gauge_series(series, start_ns) for series in looks),
    )


def _within(value: object, *keys: str) -> object:
    """What stands at a path of keys; None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _fault(fault: FaultStory, last_sign_s: float, journal: UndoLog, length_s: float) -> FaultRecord:
    """A window that the events leave open ends with the last undo of the fault's actions, where the journal has it."""
    closed_s = journal.undone_s(fault.id)
    windows = []
    for start_s, end_s in fault.on:
        until_s = end_s if end_s is not None else closed_s
        known = until_s is not None and until_s >= start_s
        windows.append(
            Window(start_s, until_s if known and until_s is not None else max(last_sign_s, length_s, start_s), known)
        )
    return FaultRecord(
        fault.id, fault.type, fault.parameters, fault.matched, tuple(fault.targets), tuple(fault.plans),
        _merged(windows), len(fault.on), fault.took_on_ns, fault.took_off_ns, fault.hits,
    )  # fmt: skip


def _merged(windows: list[Window]) -> tuple[Window, ...]:
    """At most `_WINDOWS_MAX` windows: neighbours of a fast pulse become one."""
    if len(windows) <= _WINDOWS_MAX:
        return tuple(windows)
    step = -(-len(windows) // _WINDOWS_MAX)
    groups = [windows[i : i + step] for i in range(0, len(windows), step)]
    return tuple(Window(group[0].start_s, group[-1].end_s, group[-1].end_known) for group in groups)


def _stages(story: Story, length_s: float) -> tuple[StageSpan, ...]:
    ends = [*(at_s for _, at_s in story.stages[1:]), max(length_s, story.last_s)][: len(story.stages)]
    return tuple(StageSpan(stage, at_s, end_s) for (stage, at_s), end_s in zip(story.stages, ends, strict=True))
