"""The unit that recovers at boot: a machine that was switched off during a run comes back with nothing of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from squall.errors import CannotInject
from squall.kernel import launch

if TYPE_CHECKING:
    from squall.recovery.state import State

__all__ = ["install", "main", "text", "uninstall"]

UNIT = Path("/etc/systemd/system/squall-recover.service")


def text(state: State) -> str:
    """The unit's file."""
    words = " ".join(f'"{word}"' for word in launch.command("squall.recovery.boot_unit", str(state.path)))
    return f"""\
[Unit]
Description=Undo what a killed Squall run left behind
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target multi-user.target
RequiresMountsFor={state.path}

[Service]
Type=oneshot
ExecStart={words}

[Install]
WantedBy=multi-user.target
"""


def install(state: State, unit: Path = UNIT) -> str:
    """Write and enable it; returns what was done. CannotInject without systemd or the right to."""
    _check(unit)
    unit.write_text(text(state))
    _systemctl("daemon-reload")
    _systemctl("enable", unit.name)
    return f"{unit} is there and enabled: at every boot what is open in {state.path} is undone"


def uninstall(unit: Path = UNIT) -> str:
    """Disable and remove it; harmless when it is not there."""
    if not unit.exists():
        return f"{unit} is not there"
    _check(unit)
    _systemctl("disable", unit.name)
    unit.unlink(missing_ok=True)
    _systemctl("daemon-reload")
    return f"{unit} is gone"


def _check(unit: Path) -> None:
    if not unit.parent.is_dir():
        raise CannotInject(
            f"there is no {unit.parent}: this machine has no systemd; run `squall recover` from what starts it at boot"
        )
    try:
        probe = unit.parent / ".squall-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotInject(f"{unit.parent} cannot be written: {error.strerror}; run as root") from error


def _systemctl(*words: str) -> None:
    try:
        subprocess.run(["systemctl", *words], check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise CannotInject(f"systemctl {' '.join(words)} failed: {detail.strip()}") from error


def main() -> int:
    """What the unit runs: `boot_unit STATE`."""
    from squall.recovery.orphans import recover_orphans
    from squall.recovery.state import State

    found = recover_orphans(State(Path(sys.argv[1])), by="boot")
    for one in found:
        sys.stderr.write(
            f"{one.run.id}: {len(one.reverted)} steps undone\n"
            + "".join(f"LEFT BEHIND: {line}\n" for line in one.residue)
        )
    return 5 if any(one.residue for one in found) else 0
