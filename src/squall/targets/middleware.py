"""A chaos middleware inside running services, by the name that its author gave it; sdk/PROTOCOL.md is the contract.

A registration is believed when its process lives and is the one that wrote it. Nothing in here changes anything.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from squall.errors import InputError, TargetError
from squall.kernel import proc
from squall.targets.configuration import config_files

__all__ = ["FOLDER_VARIABLE", "HALT", "Live", "MiddlewareTarget", "control_folder", "find_middleware", "registrations"]

FOLDER_VARIABLE = "SQUALL_CHAOS_DIR"
HALT = "HALT"
"""While something of this name is in the folder, nothing is injected."""
_DEFAULT = "/run/squall/chaos"
_LIVE = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]{0,63})\.(?P<pid>[0-9]{1,10})\.live")
_FORM = struct.Struct("<8sQQQQQQQQ24x32s")
_MAGIC = b"SQCHAOS1"
_NAMES_MOST = 10


@dataclass(frozen=True, slots=True)
class Live:
    """One process in which the middleware is, and what it has counted; times in ns."""

    pid: int
    start_ticks: int
    user: int
    requests: int
    delayed: int
    aborted: int
    refused: int
    delay_ns: int
    last_ns: int
    language: str

    @property
    def key(self) -> tuple[int, int]:
        """The process, told apart from any other that has its pid."""
        return self.pid, self.start_ticks


@dataclass(frozen=True, slots=True)
class MiddlewareTarget:
    """Every process that has a middleware of this name, those too that start later."""

    kind: ClassVar[str] = "middleware"
    name: str
    folder: str
    pids: tuple[int, ...] = ()
    """In which processes it was when it was found."""

    @property
    def key(self) -> str:
        """One word for it: two runs cannot drive the same one."""
        return f"middleware:{os.path.realpath(self.folder)}/{self.name}"

    @property
    def label(self) -> str:
        """For people."""
        shown = ", ".join(map(str, self.pids[:3])) + (", ..." if len(self.pids) > 3 else "")  # noqa: PLR2004
        return f"middleware {self.name} (pid {shown})" if self.pids else f"middleware {self.name}"

    def alive(self) -> bool:
        """Whether any process has it."""
        return bool(registrations(Path(self.folder), self.name))

    def to_json(self) -> dict[str, Any]:
        """As events and reports hold it."""
        return {
            "kind": self.kind, "label": self.label, "name": self.name, "folder": self.folder, "pids": list(self.pids),
        }  # fmt: skip


def control_folder() -> Path:
    """Where Squall and the middlewares meet: $SQUALL_CHAOS_DIR, else `chaos_folder` of the configuration, else /run/squall/chaos."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    found = _DEFAULT
    for path, content in config_files():
        given = content.get("chaos_folder", found)
        if not isinstance(given, str) or not given.startswith("/"):
            raise InputError(f"{path}: `chaos_folder` must be the absolute path of a folder")
        found = given
    return Path(found)


def find_middleware(name: str) -> MiddlewareTarget:
    """The middleware of this name; TargetError where no living process has it, or where none would believe Squall."""
    folder = control_folder()
    hint = f"the service must have been started with {FOLDER_VARIABLE}={folder} and its middleware with `driven` on"
    try:
        state = folder.stat()
    except OSError as error:
        raise TargetError(f"there is no middleware {name!r}: {folder}: {error.strerror}; {hint}") from error
    if not stat.S_ISDIR(state.st_mode) or state.st_mode & stat.S_IWOTH:
        raise TargetError(f"{folder} is writable by all: no middleware believes what is in it; chmod o-w {folder}")
    there = registrations(folder, name)
    if not there:
        others = sorted({found["name"] for path in folder.glob("*.live") if (found := _LIVE.fullmatch(path.name))})
        known = f"there are {', '.join(others[:_NAMES_MOST])}" if others else "there is none at all"
        raise TargetError(f"there is no middleware {name!r} alive in {folder} ({known}); {hint}")
    me = os.geteuid()
    for one in there:
        if me not in (0, one.user):
            raise TargetError(
                f"the middleware {name!r} in process {one.pid} believes root and its own user ({one.user}) only: run as one of them"
            )
        if state.st_uid not in (0, one.user):
            raise TargetError(
                f"{folder} belongs to user {state.st_uid}: the middleware {name!r} of user {one.user} does not believe what is in it"
            )
    return MiddlewareTarget(name, str(folder), tuple(one.pid for one in there))


def registrations(folder: Path, name: str) -> list[Live]:
    """What the living processes that have it say, by pid; files that are no registration are passed over."""
    found = []
    for path in folder.glob(f"{name}.*.live"):
        parts = _LIVE.fullmatch(path.name)
        if parts is None or parts["name"] != name:
            continue
        live = _read(path, int(parts["pid"]))
        if live is not None:
            found.append(live)
    return sorted(found, key=lambda one: one.pid)


def _read(path: Path, pid: int) -> Live | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        state = os.fstat(fd)
        data = os.read(fd, _FORM.size + 1) if stat.S_ISREG(state.st_mode) else b""
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(data) != _FORM.size:
        return None
    magic, said, ticks, requests, delayed, aborted, refused, delay_ns, last_ns, language = _FORM.unpack(data)
    process = proc.read_stat(pid)
    if magic != _MAGIC or said != pid or process is None or process.gone or process.start_ticks != ticks:
        return None
    text = language.rstrip(b"\0").decode("ascii", "replace")
    return Live(pid, ticks, state.st_uid, requests, delayed, aborted, refused, delay_ns, last_ns, text)
