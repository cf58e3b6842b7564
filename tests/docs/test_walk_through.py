"""The how-to about a service that nobody prepared is run, in a network and a cgroup of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, commands_of, run_document
from tests.programs.build import CACHE
from tests.servers import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "unprepared-service.md"
SECONDS_MAX = 400


@pytest.mark.kernel
@pytest.mark.slow
def test_a_static_go_server_is_faulted_in_every_way_and_freed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program, package in (("go", "golang-go"), ("curl", "curl")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
    monkeypatch.setenv("GOCACHE", str(CACHE / "go-build"))
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    text = PAGE.read_text()
    folder = tmp_path / "reader"
    folder.mkdir()
    shown = run_document(text, folder, {"8080": free_port()}, SECONDS_MAX)
    log = (tmp_path / "reader.log").read_text()
    assert len(shown) == len(commands_of(blocks_of(text))), log[-3000:]
    wrong = [
        f"line {one.command.line}: $ {one.command.words}\nshould print: {missing}\nprinted:\n{one.printed}"
        for one in shown
        if (missing := one.missing()) is not None
    ]
    assert wrong == [], "\n".join(wrong)
