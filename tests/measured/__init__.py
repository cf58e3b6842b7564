"""Workers whose coverage is measured, in the tests that are about what workers do."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from squall.actions import worker
from squall.kernel import launch

if TYPE_CHECKING:
    import pytest

__all__ = ["FOLDERS", "measure_workers"]

FOLDERS = ("actions", "dns", "handlers", "hijack", "network", "real_servers", "workers")
"""Of tests. In others it would cost time and show nothing more."""
_LAUNCH = str(Path(__file__).with_name("launch.py"))
_END_SECONDS_MAX = 2.0


def measure_workers(patch: pytest.MonkeyPatch) -> None:
    """Start workers under coverage from now on, when this process is itself measured; and let them end by themselves.

    A worker ends at the end of its owner's pipe, which has happened when it is undone; it is killed at once only to be
    sure. One that is killed tells nothing of what it did.
    """
    config = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if not config:
        return
    command, end_workers = launch.command, worker.end_workers
    site = sysconfig.get_path("purelib")

    def measured(module: str, *arguments: str, site_too: bool = False) -> list[str]:
        bare = command(module, *arguments, site=site_too)
        place = bare.index(str(Path(launch.__file__).resolve()))
        return [*bare[:place], _LAUNCH, config, site, *bare[place:]]

    def ended(token: str) -> None:
        worker.wait_for_end(token, _END_SECONDS_MAX)
        end_workers(token)

    patch.setattr(launch, "command", lambda module, *arguments, site=False: measured(module, *arguments, site_too=site))
    patch.setattr(worker, "end_workers", ended)
