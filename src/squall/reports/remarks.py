"""What a reader must know before the numbers: every format puts these sentences first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from squall.reports.endings import death
from squall.reports.hits import nothing_hit
from squall.reports.wording import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.reports.record import RunRecord, Tone

__all__ = ["Remark", "remarks"]


class Remark(NamedTuple):
    """One sentence; `bad` where something is wrong that must be seen to."""

    tone: Tone
    text: str


def remarks(record: RunRecord) -> list[Remark]:
    """A dead engine, an abort, something left behind, a fault that hit nobody, a load that fell behind, odd files.

    What the verdict's reason says already is not said again.
    """
    return [remark for remark in _all(record) if remark.text not in record.judgement.reason]


def _all(record: RunRecord) -> Iterator[Remark]:
    ending = record.ending
    if ending.how == "died":
        yield Remark("bad" if ending.open_steps else "plain", death(ending))
    if record.abort is not None:
        yield Remark("bad", f"Aborted {moment(record.abort.at_s)} ({record.abort.cause}): {record.abort.reason}")
    if ending.signal:
        yield Remark("plain", f"Interrupted by {ending.signal}.")
    for item in ending.residue:
        yield Remark("bad", f"Left behind: {item}")
    for fault in record.faults:
        if fault.windows and nothing_hit(fault.hits):
            yield Remark(
                "bad", f"{fault.type} hit nothing: the traffic took another way, or its filters did not match."
            )
    if record.load_behind and record.load_behind not in record.judgement.reason:
        yield Remark("plain", f"The load could not be sent as intended: {record.load_behind}")
    for note in record.notes:
        yield Remark("plain", note)
