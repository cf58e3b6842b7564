"""The `command` probe: a program's exit status and how long it took."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shlex
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from squall.errors import InputError
from squall.kernel import launch
from squall.probes.child import Child
from squall.probes.command_worker import Run
from squall.probes.samples import Sample

if TYPE_CHECKING:
    from squall.probes.spec import Probe

__all__ = ["CommandProbe"]

_GRACE_S = 2.0
"""How long after its time-out the worker's answer is waited for."""
_ANSWER_BYTES_MOST = 65_536


class CommandProbe:
    """Runs a program without a shell; exit status 0 is success, any other is an error with the status as detail.

    The program leads a process group, which is killed when the time is over and when the program itself has ended: a probe leaves
    nothing running. A program that puts itself into another session escapes that. Killed by a signal: detail 128 + signal.
    """

    def __init__(self, probe: Probe) -> None:
        if probe.command is None:
            raise InputError(f"{probe.name}: not a command probe")
        try:
            self._words = shlex.split(probe.command)
        except ValueError as error:
            raise InputError(f"{probe.name}: {probe.command!r} cannot be split into words: {error}") from error
        if not self._words or "\0" in probe.command:
            raise InputError(f"{probe.name}: the command {probe.command!r} names no program")
        if shutil.which(self._words[0]) is None:
            raise InputError(
                f"{probe.name}: there is no program {self._words[0]!r} that can be run (no shell is involved)"
            )
        self._name, self._timeout_s, self._timeout_ns = probe.name, probe.timeout.seconds, int(probe.timeout)
        self._worker: Child | None = None
        self.last_failure = ""

    def series(self) -> tuple[str, ...]:
        """Its one series of requests."""
        return (self._name,)

    @property
    def worker_pid(self) -> int | None:
        """The process that runs the program, while there is one."""
        return self._worker.pid if self._worker is not None else None

    async def sample(self) -> list[Sample]:
        """One run."""
        asked_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._timeout_s + _GRACE_S):
                run = await self._run()
        except (OSError, ValueError) as error:
            await self.close()  # the next sample starts another worker
            self.last_failure = f"its runner failed: {error}"
            return [Sample(self._name, asked_ns, time.monotonic_ns() - asked_ns, "error", detail=errno.ECHILD)]
        except BaseException:
            self._kill()
            raise
        if run.status == 0:
            return [Sample(self._name, run.begun_ns, run.took_ns, "ok")]
        if run.status is None and not run.errno:
            self.last_failure = f"not done within {self._timeout_s:g} s"
            return [Sample(self._name, run.begun_ns, run.took_ns, "timeout", detail=errno.ETIMEDOUT)]
        status = run.errno or (run.status if run.status is not None and run.status > 0 else 128 - (run.status or 0))
        self.last_failure = f"exit status {status}" + (f": {run.tail.strip()[-200:]}" if run.tail.strip() else "")
        return [Sample(self._name, run.begun_ns, run.took_ns, "error", detail=status)]

    async def close(self) -> None:
        """End the worker and what it runs."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            if worker.process.stdin is not None:
                worker.process.stdin.close()
            await worker.wait(1.0)
        finally:
            worker.finish()

    def _kill(self) -> None:
        """End the worker without waiting: its standard input ends with it, and it kills its program then."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(OSError):
                if worker.process.stdin is not None:
                    worker.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(1.0)  # milliseconds: the worker is in poll()
            worker.finish()

    async def _run(self) -> Run:
        """Tell the worker to run the program once; its answer."""
        if self._worker is None:
            self._worker = Child.start(
                launch.command("squall.probes.command_worker", *self._words),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        stdin, stdout = self._worker.process.stdin, self._worker.process.stdout
        if stdin is None or stdout is None:
            raise ValueError("no pipes")
        os.set_blocking(stdout.fileno(), False)
        stdin.write(b"%d\n" % self._timeout_ns)
        line = b""
        while not line.endswith(b"\n"):
            await _readable(stdout.fileno())
            data = os.read(stdout.fileno(), _ANSWER_BYTES_MOST)
            if not data or len(line) > _ANSWER_BYTES_MOST:
                raise ValueError("it ended")
            line += data
        return Run(**json.loads(line))


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
