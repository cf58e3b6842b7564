"""The guardian: a tiny process of its own session that undoes everything when the engine dies, stops or overruns.

Started before the first step with four descriptors: the journal (sharing its flock), the engine's pidfd, a socket to
the engine, and nothing else. The engine says over the socket how long it may still take (`beat DEADLINE`, CLOCK_BOOTTIME
in ns, so that a suspended machine counts) and `bye` when all is undone. Whatever else happens - the engine ends, is
stopped by a signal, falls silent, overruns, or the guardian itself is told to end - it SIGKILLs the engine by pidfd, so
that there is one writer, waits until it is gone, and undoes everything that is open.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import time
from pathlib import Path

from squall.errors import JournalError
from squall.kernel import proc
from squall.recovery.executor import undo_entries
from squall.recovery.journal import Journal, read_journal
from squall.recovery.state import RunFolder, State

__all__ = ["main"]

_TICK_S = 0.05
_SILENCE_S = 5.0
"""An engine that has not been heard of for so long hangs."""
_GRACE_S = 0.6
"""How long the engine may take to undo by itself when the guardian is told to end."""
_KILL_S = 5.0


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _Watch:
    """What the guardian knows of its engine."""

    def __init__(self, engine_pid: int, start_ticks: int, pidfd: int, link: socket.socket) -> None:
        self.engine_pid, self.start_ticks, self.pidfd, self.link = engine_pid, start_ticks, pidfd, link
        self.deadline_ns = _now_ns() + 60_000_000_000
        self.heard_s = time.monotonic()
        self.leaving_s: float | None = None
        self._partial = b""
        self._stopped_ticks = 0

    def hear(self) -> str | None:
        """Read what the engine says; "bye" or "gone" end the watch."""
        try:
            data = self.link.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return "gone"
        if not data:
            return "gone"
        self.heard_s = time.monotonic()
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            if line == b"bye":
                return "bye"
            word, _, value = line.partition(b" ")
            if word == b"beat" and value.isdigit():
                self.deadline_ns = int(value)
        with contextlib.suppress(OSError):
            self.link.send(b".")
        return None

    def verdict(self) -> str | None:
        """Why the engine must be ended now, None while all is well."""
        if _now_ns() > self.deadline_ns:
            return "the engine overran its deadline"
        if time.monotonic() - self.heard_s > _SILENCE_S:
            return f"the engine was silent for {_SILENCE_S:.0f} s"
        if self.leaving_s is not None and time.monotonic() - self.leaving_s > _GRACE_S:
            return "the guardian was told to end"
        stat = proc.read_stat(self.engine_pid)
        stopped = stat is not None and stat.start_ticks == self.start_ticks and stat.stopped
        self._stopped_ticks = self._stopped_ticks + 1 if stopped else 0
        return "the engine was stopped by a signal" if self._stopped_ticks > 1 else None

    def wait(self) -> str | None:
        """Wait until there is something to do; returns the reason to recover, "bye", or None to go on."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.register(self.link, select.POLLIN)
        for fd, _ in poll.poll(_TICK_S * 1000):
            if fd == self.pidfd:
                if self.hear() == "bye":
                    return "bye"
                return "the engine died"
            said = self.hear()
            if said == "bye":
                return "bye"
            if said == "gone":
                return "the engine closed its end"
        return self.verdict()

    def end_engine(self) -> None:
        """SIGKILL the engine and wait until it is gone: from then on there is one writer."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll(_KILL_S * 1000)


def main() -> int:
    """`guardian STATE RUN-FOLDER JOURNAL-FD ENGINE-PIDFD LINK-FD ENGINE-PID ENGINE-START`; returns 0, or 5 for residue."""
    state, run = State(Path(sys.argv[1])), RunFolder(Path(sys.argv[2]))
    journal_fd, pidfd, link_fd, engine_pid, start_ticks = (int(word) for word in sys.argv[3:8])
    link = socket.socket(fileno=link_fd)
    link.setblocking(False)
    watch = _Watch(engine_pid, start_ticks, pidfd, link)

    def told_to_end(_signal: int, _frame: object) -> None:
        watch.leaving_s = watch.leaving_s or time.monotonic()
        with contextlib.suppress(OSError):
            link.send(b"leaving\n")

    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTSTP,
        signal.SIGPIPE,
        signal.SIGTTIN,
        signal.SIGTTOU,
    ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, told_to_end)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    with contextlib.suppress(OSError):  # the engine is gone already: the first look will tell
        link.send(b"ready\n")
    with link:
        reason = None
        while reason is None:
            reason = watch.wait()
    if reason == "bye":
        _leave(state, run)
        return 0
    watch.end_engine()
    return _recover(state, run, journal_fd, reason)


def _leave(state: State, run: RunFolder) -> None:
    """The engine says that all is undone: take the marker away, should it be killed before it does."""
    with contextlib.suppress(OSError, JournalError):
        if read_journal(run.journal).closed:
            state.mark_closed(run)


def _recover(state: State, run: RunFolder, journal_fd: int, reason: str) -> int:
    journal = Journal.inherited(run.journal, journal_fd)
    _say(f"{reason}: undoing {len(journal.view.open_entries)} steps")
    left = [one for one in undo_entries(journal, "guardian") if not one.look.normal]
    for one in left:
        _say(
            f"LEFT BEHIND: {one.entry.action.describe()}: {one.look.detail}; by hand: {one.entry.action.describe_undo()}"
        )
    if left or journal.view.damage:
        return 5
    if not journal.view.closed:
        with contextlib.suppress(OSError):
            journal.close()
    run.remove_sockets()
    with contextlib.suppress(OSError):  # a read-only disk: the next command finds a closed journal
        state.mark_closed(run)  # last: once the marker is gone nobody looks at this run again
    return 0


def _say(line: str) -> None:
    """Into the run's guardian.log; a disk that takes no more must not keep it from undoing."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%FT%T%z')} {line}\n")
        sys.stderr.flush()
