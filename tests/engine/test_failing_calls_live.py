"""A whole run makes a Go program's syncs fail, is adjusted while it is on, and leaves the program as it was."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.file_programs import NORMAL, file_program
from tests.specimens import needs_root, wait_for

if TYPE_CHECKING:
    from pathlib import Path

SQUALL = (sys.executable, "-m", "squall")


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is written for x86-64")
def test_a_run_is_adjusted_while_it_is_on(tmp_path: Path) -> None:
    environment = {**os.environ, "SQUALL_STATE": str(tmp_path / "state")}
    with file_program("go", tmp_path) as program:
        inject = [
            *SQUALL, "inject", "io.error", "--target", f"pid:{program.pid}", "--calls", "sync", "--calls", "write", "--errno",
            "EIO", "--paths", str(tmp_path), "--duration", "30s", "--baseline", "1s", "--within", "5s", "--json",
        ]  # fmt: skip
        run = subprocess.Popen(inject, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: program.errors() == ("", "EIO", "EIO", ""), "the fault is on", seconds=60)
            (id_,) = [path.name for path in (tmp_path / "state" / "runs").iterdir()]
            for change, expected in (
                ("errno=ENOSPC", ("", "ENOSPC", "ENOSPC", "")),
                ('calls=["sync"]', ("", "", "ENOSPC", "")),
                ('calls=["write"]', ("", "ENOSPC", "", "")),
                ('paths=["/nowhere"]', NORMAL),
            ):
                done = subprocess.run(
                    [*SQUALL, "adjust", id_, "io.error", change],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                wait_for(lambda: program.errors() == expected, f"{change} is in force")  # noqa: B023 - at once
            refused = subprocess.run(
                [*SQUALL, "adjust", id_, "io.error", 'calls=["open"]'],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode != 0
            assert "cannot be adjusted" in refused.stderr
            subprocess.run([*SQUALL, "stop", id_], env=environment, check=True, capture_output=True)
            said, _ = run.communicate(timeout=60)
        finally:
            run.kill()
            run.wait()
        assert program.errors() == NORMAL
        assert not json.loads(said).get("residue")
        assert run.returncode != 5, "something is left"
