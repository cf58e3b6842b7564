"""An engine that dies on time: runs one experiment as `squall run` does, and is killed or stopped at the n-th change.

`engine.py ORDER`, a JSON object: state, spec, victim ("none", "engine", "guardian", "both", "stop"), at (n-th point),
note (a file that gets the time of death), points (with victim "none": a file that gets the names of all points),
guardian_at (the guardian dies at its own n-th point).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
sys.path[:0] = [str(SOURCE), str(Path(__file__).parent)]


def main() -> int:
    order: dict[str, Any] = json.loads(sys.argv[1])
    import points

    import squall.analysis.steady
    from squall.engine import Run
    from squall.experiment.model import Experiment
    from squall.injectors import INJECTORS, Chooser, Host
    from squall.kernel import launch
    from squall.recovery.guard import Guard
    from squall.recovery.state import State

    squall.analysis.steady.STABLE_NS = 100_000_000  # the matrix is about undoing, not about healing
    seen: list[str] = []
    guardian: list[int] = []
    note = os.open(order["note"], os.O_WRONLY | os.O_APPEND)
    if order.get("guardian_at") is not None:
        straight = launch.command

        def command(module: str, *words: str, site: bool = False) -> list[str]:
            argv = straight(module, *words, site=site)
            if module == "squall.recovery.guardian":
                argv[argv.index("-S") + 1 :] = [str(Path(__file__).with_name("guardian.py")), str(order["guardian_at"]), order["note"], *words]
            return argv

        launch.command = command

    started = Guard.start

    def start(*arguments: Any) -> Guard:
        guard = started(*arguments)
        guardian.append(guard.identity.pid)
        return guard

    Guard.start = start  # type: ignore[method-assign, assignment]

    def hit(name: str) -> None:
        seen.append(name)
        if len(seen) != order["at"] or order["victim"] == "none":
            return
        os.write(note, b"%d %s\n" % (time.monotonic_ns(), name.encode()))
        if order["victim"] in ("guardian", "both"):
            for pid in guardian:
                os.kill(pid, signal.SIGKILL)
        if order["victim"] in ("engine", "both"):
            os.kill(os.getpid(), signal.SIGKILL)
        if order["victim"] == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)

    points.watch(hit)
    experiment = Experiment.model_validate(order["spec"])
    run = Run(experiment, state=State(Path(order["state"])), chooser=Chooser(INJECTORS, Host.look()))

    async def execute() -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, run.interrupt, number.name)
        return (await run.execute()).exit_status

    status = 100 + asyncio.run(execute())  # a crash of Python's own ends with 1
    if order["victim"] == "none":
        Path(order["points"]).write_text("".join(f"{name}\n" for name in seen))
    return status


if __name__ == "__main__":
    sys.exit(main())
