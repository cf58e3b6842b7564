"""The durable list of a run's steps: append-only JSON lines, each on disk before what it announces.

    {"squall-journal": 1, "run": ..., "name": ..., "boot": ..., "engine": {...}, "wall_ns": ...}
    {"n": 0, "op": "intent", "fault": "0-process.pause", "step": {"kind": ..., "args": ...}, "objects": [...], "wall_ns": ...}
    {"n": 0, "op": "done", ...} {"n": 0, "op": "undone", "normal": true, "detail": ..., "by": "engine", ...}
    {"n": 0, "op": "adjusted", "step": {...}, ...} {"op": "closed", ...}

The owner holds an flock; the guardian shares the open file description, so that the lock outlives the engine. A
journal without a holder that is not closed is an orphan. A torn last line is what a killed writer leaves: it announced
nothing that was done, and is ignored. A line that cannot be read before that is damage: everything else is still
undone, and the damage is said.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from squall.actions import Action, Look, decode, encode
from squall.errors import Conflict, JournalError
from squall.kernel import proc
from squall.targets.identity import ProcessIdentity

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Entry", "Journal", "JournalView", "read_journal"]

VERSION = 1
_ROOM = 256 * 1024
"""Disk space that is set aside when the journal is made, so that what undoes can be written down on a full disk."""
_LARGEST = 64 * 1024 * 1024


@dataclass(slots=True)
class Entry:
    """One step as the journal knows it: wanted, perhaps done, perhaps undone; times are Unix ns, 0 for not yet."""

    number: int
    fault: str
    action: Action
    objects: tuple[str, ...]
    intended_ns: int
    done_ns: int = 0
    undone_ns: int = 0
    undone_by: str = ""
    look: Look | None = None
    """What verify saw last."""
    failure: str = ""

    @property
    def open(self) -> bool:
        """Whether it may still be in force: everything that was intended and not seen to be undone."""
        if self.action.recoverability == "irreversible":
            return False
        return self.look is None or not self.look.normal


@dataclass(slots=True)
class JournalView:
    """A journal as read: every entry by number, and whether it was closed."""

    run: str
    name: str
    boot: str
    engine: ProcessIdentity | None
    started_ns: int
    entries: list[Entry] = field(default_factory=list)
    closed: bool = False
    damage: list[str] = field(default_factory=list)
    """Lines that could not be read, in words."""

    @property
    def open_entries(self) -> list[Entry]:
        """What may still be in force, in the order it was done."""
        return [] if self.closed else [entry for entry in self.entries if entry.open]


def read_journal(path: Path) -> JournalView:
    """Read a journal, its owner alive or not.

    JournalError for one of a newer version or none at all; an empty file (its writer was killed before the first line
    was on disk) announced nothing and reads as a closed journal.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST)
    except FileNotFoundError:
        return JournalView(path.parent.name, "", "", None, 0, closed=True)
    lines = data.split(b"\n")
    torn = lines.pop()  # what stands after the last line end: empty, or torn
    if not lines:
        return JournalView(path.parent.name, "", "", None, 0, closed=True)
    view = _read_header(path, lines[0])
    entries: dict[int, Entry] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            _read_line(view, entries, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, JournalError) as error:
            view.damage.append(f"{path}:{number} cannot be read: {error}")
    del torn
    view.entries = [entries[key] for key in sorted(entries)]
    return view


def _read_header(path: Path, line: bytes) -> JournalView:
    try:
        data = json.loads(line)
        version = data["squall-journal"]
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(
            f"{path}:1 is not the first line of a journal: the file is damaged, or something else; undo by hand what it names, "
            f"then `squall recover {path.parent.name} --forget`"
        ) from error
    if version != VERSION:
        raise JournalError(
            f"{path} was written by a newer Squall (format {version}, this one knows {VERSION}): recover with that one; nothing was touched"
        )
    engine = data.get("engine")
    return JournalView(
        data["run"], data["name"], data["boot"], ProcessIdentity.from_json(engine) if engine else None, data["wall_ns"]
    )


def _read_line(view: JournalView, entries: dict[int, Entry], data: dict[str, Any]) -> None:
    op = data["op"]
    if op == "closed":
        view.closed = True
        return
    if op == "intent":
        action = decode(data["step"])
        entries[data["n"]] = Entry(data["n"], data["fault"], action, tuple(data["objects"]), data["wall_ns"])
        return
    entry = entries[data["n"]]
    if op == "done":
        entry.done_ns = data["wall_ns"]
    elif op == "adjusted":
        entry.action = decode(data["step"])
    elif op == "undone":
        entry.look = Look(data["normal"], data["detail"])
        entry.undone_ns, entry.undone_by = data["wall_ns"], data["by"]
    elif op == "failed":
        entry.failure = data["reason"]
    else:
        raise ValueError(f"unknown op {op!r}")


class Journal:
    """A journal that is being written: by its engine, its guardian, or whoever recovers it. One writer at a time."""

    def __init__(self, path: Path, fd: int, view: JournalView) -> None:
        self.path, self.fd, self.view = path, fd, view

    @classmethod
    def create(cls, path: Path, run: str, name: str) -> Self:
        """A new one, locked, with room set aside; OSError where the disk is full."""
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        engine = ProcessIdentity.mine()
        journal = cls(path, fd, JournalView(run, name, proc.boot_id(), engine, time.time_ns()))
        _set_room_aside(fd)
        journal._append({
            "squall-journal": VERSION, "run": run, "name": name, "boot": proc.boot_id(), "engine": engine.to_json(),
            "wall_ns": journal.view.started_ns,
        })  # fmt: skip
        return journal

    @classmethod
    def adopt(cls, path: Path) -> Self:
        """Lock and read another's, to undo it; Conflict while its engine or guardian holds it.

        On a disk that has become read-only too: what is undone cannot be written down there, but it can be undone.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Conflict(f"{path} is held by a run that is on") from None
        return cls.inherited(path, fd)

    @classmethod
    def inherited(cls, path: Path, fd: int) -> Self:
        """Go on with one whose lock came with its descriptor; a torn end is cut off."""
        try:
            view = read_journal(path)
        except JournalError:
            os.close(fd)
            raise
        with contextlib.suppress(OSError):  # read-only: nothing will be appended to it either
            _cut_torn_end(fd)
        return cls(path, fd, view)

    def intend(self, fault: str, action: Action) -> Entry:
        """Write down that a step is about to be done; on disk when this returns."""
        number = len(self.view.entries)
        entry = Entry(number, fault, action, action.objects(), time.time_ns())
        self._append({
            "n": number, "op": "intent", "fault": fault, "step": encode(action), "objects": list(entry.objects),
            "wall_ns": entry.intended_ns,
        })  # fmt: skip
        self.view.entries.append(entry)
        return entry

    def done(self, entry: Entry) -> None:
        """Write down that a step was done."""
        entry.done_ns = time.time_ns()
        self._append({"n": entry.number, "op": "done", "wall_ns": entry.done_ns})

    def failed(self, entry: Entry, reason: str) -> None:
        """Write down that a step could not be done; it still is undone."""
        entry.failure = reason
        self._append({"n": entry.number, "op": "failed", "reason": reason, "wall_ns": time.time_ns()})

    def adjusted(self, entry: Entry, action: Action) -> None:
        """Write down new arguments before they take effect."""
        self._append({"n": entry.number, "op": "adjusted", "step": encode(action), "wall_ns": time.time_ns()})
        entry.action = action

    def undone(self, entry: Entry, look: Look, by: str) -> None:
        """Write down that a step was taken back, and what was seen of its object."""
        entry.look, entry.undone_ns, entry.undone_by = look, time.time_ns(), by
        self._append({
            "n": entry.number, "op": "undone", "normal": look.normal, "detail": look.detail, "by": by,
            "wall_ns": entry.undone_ns,
        })  # fmt: skip

    def close(self) -> None:
        """Write down that nothing is open, and give up the lock."""
        self._append({"op": "closed", "wall_ns": time.time_ns()})
        self.view.closed = True
        self.release()

    def release(self) -> None:
        """Give up the lock without closing: harmless when already released."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _append(self, data: dict[str, Any]) -> None:
        line = json.dumps(data, separators=(",", ":")).encode() + b"\n"
        before, view = os.fstat(self.fd).st_size, memoryview(line)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError as error:
            error.filename = str(self.path)
            if len(view) < len(line):
                with contextlib.suppress(OSError):
                    os.ftruncate(self.fd, before)  # half a line would spoil the next one, for which there may be room
            raise
        os.fdatasync(self.fd)


def _set_room_aside(fd: int) -> None:
    """Reserve blocks without changing the length (fallocate(2) with FALLOC_FL_KEEP_SIZE); where it can't be, go without."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    keep_size = 1
    if libc.fallocate(fd, keep_size, ctypes.c_long(0), ctypes.c_long(_ROOM)) != 0:
        error = ctypes.get_errno()
        if error == errno.ENOSPC:
            raise OSError(error, os.strerror(error))


def _cut_torn_end(fd: int) -> None:
    size = os.fstat(fd).st_size
    tail = os.pread(fd, min(size, 1 << 20), max(0, size - (1 << 20)))
    whole = tail.rfind(b"\n") + 1
    if whole != len(tail):
        os.ftruncate(fd, size - len(tail) + whole)
