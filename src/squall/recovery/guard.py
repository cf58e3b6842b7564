"""The engine's handle on its guardian."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

from squall.errors import SquallError
from squall.kernel import launch
from squall.targets.identity import ProcessIdentity
from squall.targets.limits import OWN_MARK

if TYPE_CHECKING:
    from pathlib import Path

    from squall.recovery.journal import Journal
    from squall.recovery.state import RunFolder, State

__all__ = ["Guard"]

_READY_S = 10.0
_BYE_S = 3.0
_SILENCE_S = 5.0
"""A guardian that has answered no beat for so long hangs, or was stopped: it cannot be relied on."""


class Guard:
    """A running guardian. `beat` is due several times a second; `lost` tells when it is gone or leaving."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, log: Path) -> None:
        self._process, self._link, self._log = process, link, log
        self.identity = ProcessIdentity.of(process.pid)
        self._unanswered_since_s: float | None = None

    @classmethod
    def start(cls, state: State, run: RunFolder, journal: Journal) -> Self:
        """Start it and wait until it watches; SquallError when it does not."""
        ours, theirs = socket.socketpair()
        me = ProcessIdentity.mine()
        pidfd = os.pidfd_open(os.getpid())
        log = (run.path / "guardian.log").open("ab")
        try:
            process = subprocess.Popen(
                launch.command(
                    "squall.recovery.guardian", str(state.path), str(run.path), str(journal.fd), str(pidfd),
                    str(theirs.fileno()), str(me.pid), str(me.start_ticks),
                ),
                pass_fds=(journal.fd, pidfd, theirs.fileno()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=log, start_new_session=True, cwd="/", env={"LANG": "C.UTF-8", OWN_MARK: run.id},
            )  # fmt: skip
        finally:
            theirs.close()
            os.close(pidfd)
            log.close()
        readable, _, _ = select.select([ours], [], [], _READY_S)
        if not readable or not ours.recv(64).startswith(b"ready"):
            process.kill()
            process.wait()
            ours.close()
            raise SquallError(
                f"the guardian did not start; {run.path / 'guardian.log'} says why. Nothing was injected."
            )
        ours.setblocking(False)
        return cls(process, ours, run.path / "guardian.log")

    @property
    def fileno(self) -> int:
        """Readable when the guardian says something, or is gone: call `lost` then."""
        return self._link.fileno()

    def beat(self, left_s: float) -> None:
        """Say that the engine lives and how many seconds it may still take."""
        deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + round(left_s * 1e9)
        if self._unanswered_since_s is None:
            self._unanswered_since_s = time.monotonic()
        with contextlib.suppress(OSError):
            self._link.send(b"beat %d\n" % deadline)

    def lost(self) -> bool:
        """Whether the guardian is gone, about to leave, or hangs."""
        try:
            while data := self._link.recv(4096):
                self._unanswered_since_s = None
                if b"leaving" in data:
                    return True
        except BlockingIOError:
            return self._process.poll() is not None or self._silent()
        except OSError:
            return True
        return True

    def _silent(self) -> bool:
        since = self._unanswered_since_s
        return since is not None and time.monotonic() - since > _SILENCE_S

    def farewell(self) -> None:
        """Let it go: everything is undone, or left for `squall recover`; waits until it has ended."""
        with contextlib.suppress(OSError):
            self._link.send(b"bye\n")
        try:
            self._process.wait(_BYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._link.close()
        with contextlib.suppress(OSError):
            if self._log.stat().st_size == 0:  # it had nothing to say
                self._log.unlink()
