"""Runs in the guest: what this kernel can do, as one JSON document in the file that is handed back.

Each object is loaded, and so verified, for real; one that is refused is loaded program by program. What an object names
(fields, types, constants, helpers) is held against the kernel's own BTF. `squall doctor --json` says the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from squall.kernel.bpf import Answer, Object, loads
from squall.kernel.bpf.objects import names
from squall.lab.btf import Btf
from squall.lab.guest import RESULT
from squall.lab.relocations import Needs, helpers_of

__all__ = ["main", "report"]

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
SECURITY = Path("/sys/kernel/security/lsm")
DOCTOR_SECONDS_MAX = 180


def report(only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """What this kernel takes of each object (or only these): JSON values."""
    kernel = Btf(KERNEL_BTF.read_bytes()) if KERNEL_BTF.exists() else None
    helpers = helpers_of(kernel) if kernel else {}
    return {
        "release": os.uname().release,
        "btf": kernel is not None,
        "security": SECURITY.read_text().strip() if SECURITY.exists() else "",
        "objects": [_object(name, kernel, helpers) for name in (only if only is not None else names())],
    }


def _object(name: str, kernel: Btf | None, helpers: dict[int, str]) -> dict[str, Any]:
    needs = Needs.of(Path(Object(name).path).read_bytes())
    whole = loads(name)
    programs = {program: whole if whole.works else loads(name, (program,)) for program in needs.programs}
    relocations = [
        {"name": str(each), "asked": each.asked, "there": each.there(kernel) if kernel else None}
        for each in needs.relocations
    ]
    calls = [
        {"number": number, "name": helpers.get(number), "there": number in helpers if kernel else None}
        for number in needs.helpers
    ]
    return {
        "name": name,
        **_answered(whole),
        "programs": [{"name": program, **_answered(answer)} for program, answer in programs.items()],
        "relocations": relocations,
        "helpers": calls,
    }


def _answered(answer: Answer) -> dict[str, Any]:
    return {"works": answer.works, "reason": answer.reason}


def doctor() -> dict[str, Any]:
    """What `squall doctor --json` says here; `problem` instead when it says nothing."""
    command = [sys.executable, "-m", "squall", "doctor", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOCTOR_SECONDS_MAX, check=True)
        said: dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        return {"problem": f"squall doctor ended with {error.returncode}: {error.stderr.strip()[-500:]}"}
    except (subprocess.TimeoutExpired, ValueError) as error:
        return {"problem": f"squall doctor: {error}"}
    return said


def main() -> int:
    """Everything, handed back to the host."""
    Path(RESULT).write_text(json.dumps({**report(), "doctor": doctor()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
