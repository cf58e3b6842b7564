"""A guardian that dies on time: killed at its own n-th change.

`guardian.py N NOTE ARGUMENTS...`
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "src"), str(Path(__file__).parent)]


def main() -> int:
    at, note = int(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    sys.argv = ["guardian", *sys.argv[3:]]
    import points

    from squall.recovery import guardian

    count = 0

    def hit(name: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.write(note, b"%d guardian %s\n" % (time.monotonic_ns(), name.encode()))
            os.kill(os.getpid(), signal.SIGKILL)

    points.watch(hit)
    return guardian.main()


if __name__ == "__main__":
    sys.exit(main())
