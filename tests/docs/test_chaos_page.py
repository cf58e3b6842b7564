"""The how-to about chaos in a service is run, as its author and its operator would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, commands_of, run_document
from tests.servers import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "chaos-in-a-service.md"
SECONDS_MAX = 120


@pytest.mark.slow
def test_a_service_is_given_chaos_and_freed_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl: apt-get install curl")
    for package in ("starlette", "uvicorn"):
        pytest.importorskip(package, reason=f"needs {package}: pip install {package}")
    monkeypatch.setenv("SQUALL_STATE", str(tmp_path / "state"))
    folder = tmp_path / "reader"
    folder.mkdir()
    text = PAGE.read_text()
    shown = run_document(text, folder, {"8090": free_port()}, SECONDS_MAX)
    log = (tmp_path / "reader.log").read_text()
    assert len(shown) == len(commands_of(blocks_of(text))), log[-3000:]
    wrong = [
        f"line {one.command.line}: $ {one.command.words}\nshould print: {missing}\nprinted:\n{one.printed}"
        for one in shown
        if (missing := one.missing()) is not None
    ]
    assert wrong == [], "\n".join(wrong)
