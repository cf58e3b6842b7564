"""RECOVER: the journal, the guardian process, and recover. Standard library only.

General layout: `state` says where everything is; `journal` is the durable list of steps of one run; `executor` does and
undoes steps by it; `guardian` is the separate process that undoes when the engine cannot, `guard` the engine's handle
on it; `orphans` finds and undoes what runs left whose engine and guardian both died.
"""

from squall.recovery.executor import Executor, Reverted
from squall.recovery.guard import Guard
from squall.recovery.journal import Entry, Journal, JournalView, read_journal
from squall.recovery.orphans import Recovered, recover_orphans
from squall.recovery.state import RunFolder, State

__all__ = [
    "Entry",
    "Executor",
    "Guard",
    "Journal",
    "JournalView",
    "Recovered",
    "Reverted",
    "RunFolder",
    "State",
    "read_journal",
    "recover_orphans",
]
