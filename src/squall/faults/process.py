"""Faults on a process: killed, paused, crashed, failing in its own handlers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from squall.faults.base import Fault
from squall.faults.handlers import InHandler
from squall.units import Duration, Within

__all__ = ["Crash", "Kill", "Panic", "Pause"]


class _OnProcess(Fault):
    descendants: bool = False
    """Also the processes that descend from the target, as they are when the fault begins."""


class Kill(_OnProcess, type="process.kill", targets=("process",), reversible=False):
    """The process is ended by a signal, at once or (SIGTERM and the like) when it chooses to; whoever runs it must start it again."""

    signal: Literal["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"] = "SIGKILL"
    """What is sent. SIGKILL cannot be caught; the others test the service's own shutdown."""


class Crash(_OnProcess, type="process.crash", targets=("process",), reversible=False):
    """The process dies as from a bug: SIGSEGV, SIGABRT, or SIGQUIT (a Go service prints its goroutines).

    It tests that the process is restarted, that its callers cope and that a core or crash report is handled. It does
    not test the service's own recover or except: no code of its own runs on the failing request's stack.
    """

    signal: Literal["SIGSEGV", "SIGABRT", "SIGQUIT"] = "SIGSEGV"
    """How it dies."""


class Pause(_OnProcess, type="process.pause", targets=("process",)):
    """The process stands still (SIGSTOP): its sockets stay open, the kernel goes on to accept for it, nobody answers.

    With `stopped` and `every` it stands still for a part of each period and so seems slow.
    """

    stopped: Annotated[Duration, Within("1ms", "1h")] | None = None
    """How long it stands still in each period; needs `every`."""
    every: Annotated[Duration, Within("2ms", "1h")] | None = None
    """The period; longer than `stopped`."""

    @model_validator(mode="after")
    def _a_duty_cycle_is_whole(self) -> Self:
        if (self.stopped is None) != (self.every is None):
            raise ValueError("`stopped` and `every` belong together: give both, or neither for a pause without gaps")
        if self.stopped is not None and self.every is not None and self.stopped >= self.every:
            raise ValueError(f"`stopped` ({self.stopped}) must be shorter than `every` ({self.every})")
        return self


class Panic(InHandler, type="process.panic", targets=("process",)):
    """A handler fails as from a bug of its own: a nil dereference in Go, an exception in Python, on the request's own stack.

    The service's own recover or except is what is tested. One that has none dies, as it would. What has failed cannot
    be taken back; when the fault ends no further call fails.
    """

    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many calls fail at most; without it all that are drawn, for as long as the fault is on."""
    exception: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*(: .+)?$", max_length=300)] | None = None
    """Python: the exception's type and text, "RuntimeError: out of luck"; without it a RuntimeError that names Squall."""

    @model_validator(mode="after")
    def _go_has_one_panic(self) -> Self:
        if self.language == "go" and self.exception is not None:
            raise ValueError("`exception` is Python's: a Go panic raised from outside is a nil dereference")
        return self
