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


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_document_does_what_it_shows(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text()
    folder = tmp_path / "reader"
    folder.mkdir()
    try:
        shown = run_document(text, folder, ports_named_in(text), RUN[name])
    except subprocess.TimeoutExpired:
        pytest.fail(f"{name} took longer than {RUN[name]} s:\n{(tmp_path / 'reader.log').read_text()[-3000:]}")
    assert len(shown) == len(commands_of(blocks_of(text))), (tmp_path / "reader.log").read_text()[-3000:]
    for each in shown:
        missing = each.missing()
        assert missing is None, (
            f"{name}:{each.command.line}: $ {each.command.words}\nshould print: {missing}\nprinted:\n{each.printed}"
        )


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
