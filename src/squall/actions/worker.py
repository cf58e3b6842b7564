"""A process of Squall's own that works beside the target and ends with its owner."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squall.actions.base import Action, Look
from squall.errors import ActionFailed
from squall.kernel import launch, proc
from squall.targets.limits import OWN_MARK
from squall.workers.lifeline import HELD_BACK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Worker", "dismiss", "end_workers", "spawn", "stand_by", "surviving", "tell", "wait_for_end"]

TOKEN = "SQUALL_WORKER"  # noqa: S105 - the name of a variable, not a secret
"""Every worker carries its token in this variable, so that whoever reads the journal can find it."""
_READY_S = 30.0
"""Long, for emulated and crowded machines: an interpreter starts and the kernel verifies programs. A dead worker is seen at once."""
_END_S = 3.0
_ROUNDS = 3
"""A worker that starts processes of its own may start one while it is being ended."""

_children: dict[str, list[int]] = {}
"""What this process has started, by token: it must reap them, however they ended."""


_standing_by: dict[str, subprocess.Popen[bytes]] = {}
"""Processes that wait for their arguments, by token; they end when this process does, at the end of their input."""


def stand_by(module: str, token: str, *, site: bool = False) -> None:
    """Start the process that `spawn` with this token will use: what takes its time is done when the moment comes.

    It has touched nothing and does nothing; `dismiss` ends it.
    """
    if token not in _standing_by:
        _standing_by[token] = _start(module, token, [launch.STAND_BY], site=site)


def dismiss(token: str) -> None:
    """End the process that stands by under this token, if there is one."""
    process = _standing_by.pop(token, None)
    if process is not None:
        _close(process)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spawn(module: str, token: str, config: Sequence[str], *, site: bool = False) -> tuple[int, int]:
    """Start `module.main()` and wait until it says "ready"; returns its life line (the pipe to its stdin) and its pid.

    The worker ends when the life line closes. What it writes instead of "ready" is the reason of an ActionFailed.
    """
    process = _called(token, config)
    line = _first_line(process) if process is not None else ""
    if process is None or not line:  # none stood by, or it died
        if process is not None:
            _close(process)
            process.wait()
        process = _start(module, token, config, site=site)
        line = _first_line(process)
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    life_line = os.dup(process.stdin.fileno())  # not inheritable, as Python's descriptors are
    _close(process)
    process.returncode = 0  # it is reaped by `end_workers`; a Popen would warn that it still runs
    _children.setdefault(token, []).append(process.pid)
    if line.strip() != "ready":
        os.close(life_line)
        end_workers(token)
        raise ActionFailed(_reason(line.strip()) or f"the worker {module} ended before it was ready")
    return life_line, process.pid


def _called(token: str, config: Sequence[str]) -> subprocess.Popen[bytes] | None:
    """The process that stands by under this token, told what to do; None when there is none, or when it has ended."""
    process = _standing_by.pop(token, None)
    if process is None:
        return None
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    try:
        os.write(process.stdin.fileno(), json.dumps(list(config)).encode() + b"\n")
    except BrokenPipeError:
        _close(process)
        process.wait()
        return None
    return process


def _start(module: str, token: str, arguments: Sequence[str], *, site: bool) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "LANG": "C.UTF-8",
        OWN_MARK: token.partition("/")[0],
        TOKEN: token,
    }
    return subprocess.Popen(
        launch.command(module, *arguments, site=site), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=environment, start_new_session=True, cwd="/",
    )  # fmt: skip


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _reason(line: str) -> str:
    """What a worker that could not begin says: a sentence, or an object with its `error`."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            return str(json.loads(line).get("error", line))
    return line


def _first_line(process: subprocess.Popen[bytes]) -> str:
    """What it says first, "" when it ends without a word."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    fd = process.stdout.fileno()
    poll, data, deadline = select.poll(), b"", time.monotonic() + _READY_S
    poll.register(fd, select.POLLIN)
    while b"\n" not in data and len(data) < 1 << 16:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return f"the worker was not ready within {_READY_S:.0f} s"
        chunk = os.read(fd, 4096)
        if not chunk:
            break
        data += chunk
    return data.decode(errors="replace")


def tell(life_line: int, config: Mapping[str, Any]) -> bool:
    """Give a worker a new configuration; False when it has ended."""
    try:
        os.write(life_line, json.dumps(config).encode() + b"\n")
    except BrokenPipeError:
        return False
    return True


def surviving(token: str) -> list[proc.ProcessStat]:
    """The processes that carry this token, zombies left out."""
    stats = (proc.read_stat(pid) for pid in proc.carriers(TOKEN, token) if pid != os.getpid())
    return [stat for stat in stats if stat is not None and not stat.gone]


def wait_for_end(token: str, seconds: float) -> None:
    """Give the processes that carry this token so long to end by themselves."""
    deadline = time.monotonic() + seconds
    for stat in surviving(token):
        proc.wait_gone(stat.pid, stat.start_ticks, max(0.0, deadline - time.monotonic()))


def end_workers(token: str) -> None:
    """End every process that carries this token and wait until it is gone, a few seconds at most; reap own children."""
    deadline = time.monotonic() + _END_S
    for _ in range(_ROUNDS):
        left = surviving(token)
        for stat in left:
            with contextlib.suppress(PermissionError):
                proc.send_signal(stat.pid, stat.start_ticks, signal.SIGKILL)
        for stat in left:  # not who still carries it now: one that frees its memory has no environment any more
            proc.wait_gone(stat.pid, stat.start_ticks, max(0.0, deadline - time.monotonic()))
        if not left:
            break
    for pid in _children.pop(token, ()):
        _reap(pid, deadline)


def _reap(pid: int, deadline: float) -> None:
    """Take in a child of this process that has ended or is about to."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.001)


@dataclass(frozen=True)
class Worker(Action, kind="worker", recoverability="lease"):
    """Start one of Squall's worker modules; it ends by itself at the end of its owner's pipe.

    `token` is unique to the step ("RUN/NUMBER"); `config` is given to the module as one JSON argument.
    """

    token: str
    module: str
    purpose: str
    """What it does, for people: "burn 50% of a core in /app"."""
    config: dict[str, Any]
    holds: tuple[str, ...] = ()
    linger_s: float = 0.0
    """So long it may take to end in good order (it has let go by then) before it is ended."""

    def stand_by(self) -> None:
        """Have its process ready."""
        stand_by(self.module, self.token)

    def dismiss(self) -> None:
        """End the process that stands by for it."""
        dismiss(self.token)

    def do(self) -> tuple[int, ...]:  # noqa: D102 - as the base says
        life_line, _ = spawn(self.module, self.token, [json.dumps(self.config)])
        return (life_line,)

    def undo(self) -> None:  # noqa: D102
        if self.linger_s:
            wait_for_end(self.token, self.linger_s)
        end_workers(self.token)

    def verify(self) -> Look:  # noqa: D102
        left = surviving(self.token)
        if left:
            return Look(normal=False, detail=f"still running: {', '.join(f'pid {stat.pid}' for stat in left)}")
        return Look(normal=True, detail="the worker has ended")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return self.holds

    def describe(self) -> str:  # noqa: D102
        return f"start a worker: {self.purpose}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"end the processes with {TOKEN}={self.token} in their environment"

    def become(self, new: Action, held: Sequence[int]) -> bool:
        """Give the worker its new arguments through its life line."""
        if not isinstance(new, Worker) or new.module != self.module or not held:
            return False
        return tell(held[0], new.config)

    def in_force(self) -> bool:
        """Whether the worker still runs."""
        return bool(surviving(self.token))

    def counters(self) -> dict[str, int]:
        """Its processes, the CPU time they burnt (ms), the memory they hold (bytes).

        Where it is any: the disk space they hold (bytes), and how many are held back because of a spare.
        """
        ticks = os.sysconf("SC_CLK_TCK")
        page = os.sysconf("SC_PAGE_SIZE")
        left = surviving(self.token)
        counts = {
            "workers": len(left),
            "cpu_ms": sum((stat.utime + stat.stime) * 1000 // ticks for stat in left),
            "rss_bytes": sum(stat.rss_pages * page for stat in left),
        }
        some = {
            "disk_bytes": sum(proc.nameless_bytes(stat.pid) for stat in left),
            "held_back": sum(stat.comm == HELD_BACK for stat in left),
        }
        return counts | {name: count for name, count in some.items() if count}
