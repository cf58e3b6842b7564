"""The process that runs a `command` probe's program: started by `command.CommandProbe` and by nobody else.

It stands between the engine and the program so that the program never outlives the engine: at the end of its standard
input it kills the program's process group and ends. Its arguments are the program's words; each line of standard
input, a time-out in ns, is one run; each line of standard output is a `Run` as JSON. Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

__all__ = ["Run", "main", "serve"]

TAIL_BYTES_MOST = 2048
"""Of what the program writes only its end is kept, for the reason of a failure; all of it is read."""


@dataclass(frozen=True, slots=True)
class Run:
    """How one run ended; `status` is the exit status, minus the signal, None when it was killed for its time."""

    begun_ns: int
    took_ns: int
    status: int | None
    errno: int = 0
    """Why it could not be started."""
    tail: str = ""


class _Ended(Exception):  # noqa: N818 - not an error
    """Standard input is over."""


def main() -> int:
    """Run `sys.argv[1:]` once for each line of standard input."""
    serve(sys.argv[1:], 0, 1)
    return 0


def serve(words: list[str], heard_fd: int, told_fd: int) -> None:
    """Run the words once for each line, until the end of the lines."""
    with contextlib.suppress(_Ended, BrokenPipeError):
        while True:
            run = _run(words, int(_line(heard_fd)), heard_fd)
            os.write(told_fd, json.dumps(dataclasses.asdict(run)).encode() + b"\n")


def _line(heard_fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(heard_fd, 1)
        if not byte:
            raise _Ended
        line += byte
    return line


def _run(words: list[str], timeout_ns: int, heard_fd: int) -> Run:
    begun_ns = time.monotonic_ns()
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        return Run(begun_ns, time.monotonic_ns() - begun_ns, None, number or 22, str(error))
    try:
        in_time, tail = _watch(process, begun_ns + timeout_ns, heard_fd)
        took_ns = time.monotonic_ns() - begun_ns
    finally:  # until it is reaped its pid is nobody else's: what is left of its group can be killed safely
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return Run(begun_ns, took_ns, status if in_time else None, tail=tail.decode(errors="replace"))


def _watch(process: subprocess.Popen[bytes], deadline_ns: int, heard_fd: int) -> tuple[bool, bytes]:
    """Whether it ended in time, and the end of what it wrote; raises _Ended with the owner."""
    output = process.stdout.fileno() if process.stdout is not None else -1
    pidfd = os.pidfd_open(process.pid)
    tail, poll = b"", select.poll()
    for fd in (heard_fd, pidfd, output):
        poll.register(fd, select.POLLIN)
    try:
        while True:
            left_ns = deadline_ns - time.monotonic_ns()
            ready = dict(poll.poll(max(left_ns / 1e6, 0))) if left_ns > 0 else {}
            if heard_fd in ready:
                raise _Ended
            if output in ready:
                data = os.read(output, 65_536)
                tail = (tail + data)[-TAIL_BYTES_MOST:]
                if not data:
                    poll.unregister(output)
            if pidfd in ready:
                return True, tail
            if not ready and time.monotonic_ns() >= deadline_ns:
                return False, tail
    finally:
        os.close(pidfd)


if __name__ == "__main__":
    sys.exit(main())
