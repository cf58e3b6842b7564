"""A process that has imported everything and forks one engine for each order it reads: a cell starts in milliseconds.

`zygote.py [DISK MEGABYTES]`: orders are JSON objects, one a line on standard input; for each it prints the engine's pid
on one line and its wait status on the next. An engine runs one experiment exactly as `squall run` does (same code, same
signals), in a session of its own, and dies at the n-th change. An order: state, spec, death (a name of `deaths.DEATHS`,
or "none"), at (n-th point), note (a file that gets the time of death), points (a file that gets the names of all
points), log, target (its pid); perhaps lose_target (the point after which the target is killed once), cgroup,
guardian_at (the guardian dies at its own n-th point), disk, environment.

With DISK it puts a small file system of its own there; to be started in a mount namespace of its own (`unshare -m`).
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "src"), str(Path(__file__).parent)]

import deaths  # noqa: E402 - the path first
import points  # noqa: E402

import squall.analysis.steady  # noqa: E402
from squall.cli.execution import execute  # noqa: E402
from squall.errors import SquallError  # noqa: E402
from squall.experiment.model import Experiment  # noqa: E402
from squall.kernel import launch  # noqa: E402
from squall.recovery.guard import Guard  # noqa: E402
from squall.recovery.state import State  # noqa: E402

MNT_DETACH = 2


def live(order: dict[str, Any]) -> int:
    """Run the order's experiment; 100 and its exit status, so that a crash of Python's own (1) stands out."""
    squall.analysis.steady.STABLE_NS = 20_000_000  # the matrix is about undoing, not about healing
    os.environ.update(order.get("environment", {}))
    order["guardian"] = []
    _remember_guardian(order["guardian"])
    if order.get("guardian_at") is not None:
        _mortal_guardian(order)
    seen: list[str] = []
    _watch(order, seen)
    try:
        outcome = execute(Experiment.model_validate(order["spec"]), state=State(Path(order["state"])), quiet=True)
        status, reason = outcome.exit_status, outcome.reason
    except SquallError as error:
        status, reason = error.exit_status, str(error)
    _take_back_limit()
    sys.stderr.write(f"said: {reason}\n")
    if order["death"] == "none":
        Path(order["points"]).write_text("".join(f"{name}\n" for name in seen))
    return 100 + status


def _watch(order: dict[str, Any], seen: list[str]) -> None:
    note = os.open(order["note"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    counter, lose = itertools.count(1), order.get("lose_target")

    def hit(name: str) -> None:
        nonlocal lose
        number = next(counter)
        seen.append(name)
        if name == lose:
            lose = None
            deaths.DEATHS["target"](order)
        if number == order["at"] and order["death"] != "none":
            os.write(note, b"%d %s\n" % (time.monotonic_ns(), name.encode()))
            deaths.DEATHS[order["death"]](order)

    points.watch(hit)


def _remember_guardian(pids: list[int]) -> None:
    started = Guard.start

    def start(*arguments: Any) -> Guard:
        guard = started(*arguments)
        pids.append(guard.identity.pid)
        return guard

    Guard.start = start  # type: ignore[method-assign, assignment]


def _mortal_guardian(order: dict[str, Any]) -> None:
    straight = launch.command

    def command(module: str, *words: str, site: bool = False) -> list[str]:
        argv = straight(module, *words, site=site)
        if module == "squall.recovery.guardian":
            mortal = str(Path(__file__).with_name("guardian.py"))
            argv[argv.index("-S") + 1 :] = [mortal, str(order["guardian_at"]), order["note"], *words]
        return argv

    launch.command = command


def engine(order: dict[str, Any]) -> None:
    """In the forked process: settle, run, end."""
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o600)
        for number, fd in ((0, null), (1, log), (2, log)):
            os.dup2(fd, number)
        os.close(null)
        os.close(log)
        if order.get("cgroup"):
            Path(order["cgroup"], "cgroup.procs").write_text(str(os.getpid()))
        status = live(order)
    except BaseException:  # noqa: BLE001 - whatever it is, the log tells it and the status says so
        _take_back_limit()
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _take_back_limit() -> None:
    """`files-no-larger` must not keep the log from being written."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _tidy(order: dict[str, Any]) -> None:
    """What a disk that is full or read-only needs before the next order."""
    libc = ctypes.CDLL(None, use_errno=True)
    if order["death"].startswith("disk-read-only"):
        libc.umount2(order["state"].encode(), MNT_DETACH)
    if order.get("disk"):
        Path(order["disk"], "filler").unlink(missing_ok=True)


def main() -> None:
    """Until standard input ends."""
    if len(sys.argv) > 1:
        deaths.mount("none", "/", flags=1 << 18 | 1 << 14)  # MS_PRIVATE | MS_REC: nothing of it is seen outside
        deaths.mount("squall-crash", sys.argv[1], "tmpfs", 0, f"size={sys.argv[2]}m,mode=0700")
    gc.collect()
    gc.freeze()
    print("ready", flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("tidy"):
            _tidy(order)
            print("tidy", flush=True)  # noqa: T201
            continue
        pid = os.fork()
        if pid == 0:
            engine(order)
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
