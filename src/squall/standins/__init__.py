"""Stand-ins: servers that take a dependency's place and answer from a script, to prove that a client copes.

A script (`script`) says which calls are expected and how each is answered; `matching` decides which expectation a call
meets; `server` speaks HTTP, well or badly as the script wants; `standing` starts and ends one, in a test or for the
command line; `report` says what was not as expected. Nothing here is loaded before it is asked for, because pytest
imports the plugin of this room in every project that has Squall installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.standins.report import Call, Report, StandInMismatch, Unexpected, Unused
    from squall.standins.script import Answer, Expectation, Match, Script, read_script
    from squall.standins.standing import StandIn, serve, standin

__all__ = [
    "Answer",
    "Call",
    "Expectation",
    "Match",
    "Report",
    "Script",
    "StandIn",
    "StandInMismatch",
    "Unexpected",
    "Unused",
    "read_script",
    "serve",
    "standin",
]

_ROOMS = {
    "report": ("Call", "Report", "StandInMismatch", "Unexpected", "Unused"),
    "script": ("Answer", "Expectation", "Match", "Script", "read_script"),
    "standing": ("StandIn", "serve", "standin"),
}


def __getattr__(name: str) -> object:
    import importlib

    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"squall.standins.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
