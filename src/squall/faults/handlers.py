"""What faults inside a running service's own handlers share: which function, how many of its calls, in which language."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squall.faults.base import Fault
from squall.units import Ratio, Within

__all__ = ["HTTP_ENTRY", "InHandler"]

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
