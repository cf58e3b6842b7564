"""Runs every benchmark, one after the other: each tests/benchmarks/*/bench.py, which writes its page in docs/benchmarks.

`make bench`, or by hand with the names of some: `python tests/benchmarks/run.py load proxy`. The status is that of the
last one that failed, 0 when none did.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(wanted: list[str]) -> int:
    """Run the benchmarks of these names, all when there are none."""
    scripts = {script.parent.name: script for script in sorted(HERE.glob("*/bench.py"))}
    unknown = [name for name in wanted if name not in scripts]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(scripts)}", file=sys.stderr)
        return 2
    status = 0
    for name in wanted or scripts:
        print(f"\n=== {name}", flush=True)
        status = subprocess.run([sys.executable, str(scripts[name])], check=False).returncode or status
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
