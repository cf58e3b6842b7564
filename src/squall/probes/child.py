"""A child process that is waited for without a thread and killed without mistaking it for its successor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess

__all__ = ["Child"]


class Child:
    """A started process that leads its own group. Until it is reaped its pid, and so the group's number, is nobody else's."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:
            self._reap_killed()
            raise
        self.status: int | None = None

    @classmethod
    def start(cls, words: list[str], *, stdin: int, stdout: int, stderr: int) -> Child:
        """Start a program, found on PATH, in a process group of its own; OSError where it cannot be."""
        return cls(subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, process_group=0, bufsize=0))

    @property
    def pid(self) -> int:
        """Its process id, also its group's."""
        return self.process.pid

    async def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds; it stays a zombie until `finish`, so that its group can be ended."""
        if self.status is not None:
            return True
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._pidfd, _mark, ended)
        try:
            async with asyncio.timeout(seconds):
                await ended
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._pidfd)
        return True

    def finish(self) -> int:
        """End whatever is left of its group, reap it, and return its exit status (minus the signal); idempotent."""
        if self.status is None:
            self.status = self._reap_killed()
            os.close(self._pidfd)
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        return self.status

    def _reap_killed(self) -> int:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait()


def _mark(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
