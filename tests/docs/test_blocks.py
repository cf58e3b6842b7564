"""What stands in the README and in the docs as a command is what happens when one types it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, commands_of, run_document
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]

RUN = {"README.md": 120, "docs/tutorial.md": 240}
"""Documents whose blocks are run, and how many seconds that may take."""


def ports_named_in(text: str) -> dict[str, int]:
    """A free port for each of the ports 8080 to 8099 that a document names, all different."""
    named = sorted(set(re.findall(r"(?<![\d.])(80[89]\d)\b", text)))
    free: set[int] = set()
    while len(free) < len(named):
        free.add(free_port())
    return dict(zip(named, sorted(free), strict=True))


TRIES_MAX = 3
"""A run on a machine that is too busy at that moment is inconclusive, and says so: then the reader tries again."""


def complaint(name: str, text: str, folder: Path) -> str | None:
    """Run a document in an empty folder; what it does not do as shown, None when all is as shown."""
    folder.mkdir()
    log = folder.parent / f"{folder.name}.log"
    try:
        shown = run_document(text, folder, ports_named_in(text), RUN[name])
    except subprocess.TimeoutExpired:
        return f"{name} took longer than {RUN[name]} s:\n{log.read_text()[-3000:]}"
    if len(shown) != len(commands_of(blocks_of(text))):
        return f"{name} ended early:\n{log.read_text()[-3000:]}"
    for each in shown:
        if (missing := each.missing()) is not None:
            return (
                f"{name}:{each.command.line}: $ {each.command.words}\nshould print: {missing}\nprinted:\n{each.printed}"
            )
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_document_does_what_it_shows(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text()
    for attempt in range(TRIES_MAX):
        wrong = complaint(name, text, tmp_path / f"reader-{attempt}")
        log = (tmp_path / f"reader-{attempt}.log").read_text()
        if wrong is None or "this machine is too busy" not in log:
            break
    assert wrong is None, wrong


def test_every_document_that_is_run_has_commands() -> None:
    assert [name for name in RUN if not commands_of(blocks_of((ROOT / name).read_text()))] == []


def test_output_that_differs_is_seen(tmp_path: Path) -> None:
    text = "```console\n$ echo one; echo two; echo three\none\n...\nthr...\n$ (exit 3)\n$ echo $?\n0\n```\n"
    shown = run_document(text, tmp_path, {}, 10)
    assert [each.missing() for each in shown] == [None, None, "0"]


def test_a_named_block_is_a_file_and_jobs_end_with_the_document(tmp_path: Path) -> None:
    text = "```yaml\n# a.yaml\nport: 8080\n```\n```console\n$ sleep 600 &\n$ echo $! > pid; cat \\\n  a.yaml\nport: 8080\n```\n"
    folder = tmp_path / "reader"
    folder.mkdir()
    assert [each.missing() for each in run_document(text, folder, {"8080": 7}, 10)] == [None, None]
    assert (folder / "a.yaml").read_text() == "# a.yaml\nport: 7\n"
    job = Path(f"/proc/{(folder / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while job.exists() and ") Z " not in job.read_text():
        assert time.monotonic() < deadline, "the job is still there"
        time.sleep(0.01)
