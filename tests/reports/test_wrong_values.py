"""Whatever an event holds, there is a report: what is not as its kind promises is left out and counted."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from squall.reports import FORMATS, load_run, render, to_text
from tests.reports import synthetic
from tests.reports.markup import read

if TYPE_CHECKING:
    from pathlib import Path

STRANGE: list[Any] = [
    None, True, -1, 0, 3.5, 10**30, -(10**30), "", "text", [], [[]], [None, 1], {}, {"a": {"b": []}}, [{"value": "x"}],
    {"before": {"value": "x", "low": None}}, {"before": 3}, {"during": {"value": 1, "n": []}}, float("nan"), float("inf"),
]  # fmt: skip


def paths_of(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths_of(item, (*at, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """A copy with another value at a place."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_there_is_a_report_whatever_an_event_holds(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    folder = synthetic.failed(tmp_path / "run")
    (folder / "samples.bin").unlink()
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for _ in range(60):
        changed = list(lines)
        for index in draw.sample(range(len(lines)), 2):
            line = lines[index]
            changed[index] = replaced(line, draw.choice(paths_of(line)[1:]), draw.choice(STRANGE))
        (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
        record = load_run(folder)
        for name in FORMATS:
            render(record, name).encode()
        assert read(render(record, "html")).problems == []
        to_text(record)
