"""Faults inside a running service's own handlers: what it was never prepared for happens on its own stack."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from squall.faults.base import Fault
from squall.units import Duration, Ratio, Within

__all__ = ["HTTP_ENTRY", "Degrade", "Panic"]

HTTP_ENTRY = "net/http.serverHandler.ServeHTTP"
"""Where every request to a Go net/http server comes through, HTTP/1 and HTTP/2."""
_HUNDRED = Ratio.parse("100%")
_FUNCTION = r"^[A-Za-z_][A-Za-z0-9_./:()*%~-]*$"


class InHandler(Fault):
    """What they share."""

    function: Annotated[str, Field(pattern=_FUNCTION, max_length=300)] | None = None
    """Go: the linker's name, "main.(*shop).order"; if none is given, net/http's entry. Python: "module:qualified.name"."""
    percent: Annotated[Ratio, Within("0%", "100%")] = _HUNDRED
    """The share of calls that are hit, drawn from the experiment's seed."""
    language: Literal["auto", "go", "python"] = "auto"
    """What the service is written in; `auto` looks at the program."""


class Degrade(InHandler, type="http.degrade", targets=("process",)):
    """Each request is handled late: the service itself seems slow, whoever calls it and however.

    In Go it is a busy wait in the kernel, which costs a CPU for as long and is meant for small times; in Python the
    handler sleeps (an asynchronous one lets others run meanwhile).
    """

    delay: Annotated[Duration, Within("1us", "1m")]
    """How late, at the function's entry."""


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
