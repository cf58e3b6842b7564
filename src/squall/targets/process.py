"""Processes of this machine, found by pid, command, listening port or systemd unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from squall.errors import TargetError
from squall.kernel import cgroups, proc
from squall.targets.identity import ProcessIdentity

__all__ = ["ProcessTarget", "command_names", "find_processes"]

_INTERPRETER = re.compile(r"(python|pypy|node|ruby|perl|bash|dash|sh|java)[0-9.]*")
_KINDS = {"pypy": "python", "bash": "sh", "dash": "sh"}
"""Interpreters that take the options of another."""
_TAKES_A_VALUE = {
    "python": {"-X", "-W", "--check-hash-based-pycs"}, "sh": {"-o", "-O", "+o", "+O", "--rcfile", "--init-file"},
    "node": {"-r", "--require", "--import", "--loader"}, "ruby": {"-I", "-r", "-E"}, "perl": {"-I"},
    "java": {"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-opens", "--add-modules"},
}  # fmt: skip
"""Options whose next word is not the script."""
_TEXT_LETTER = {"python": "c", "sh": "c", "perl": "eE", "ruby": "e", "node": "ep"}
"""After an option that ends with one of these comes code, not the name of a script."""


@dataclass(frozen=True, slots=True)
class ProcessTarget:
    """One process; `descendants` are the processes below it that the fault covers as well (none unless asked for)."""

    kind: ClassVar[str] = "process"
    identity: ProcessIdentity
    command: str
    descendants: tuple[ProcessIdentity, ...] = ()

    @property
    def key(self) -> str:
        """One word for it."""
        return self.identity.key

    @property
    def label(self) -> str:
        """For people."""
        below = f" and {len(self.descendants)} below it" if self.descendants else ""
        return f"{self.command} (pid {self.identity.pid}){below}"

    @property
    def all(self) -> tuple[ProcessIdentity, ...]:
        """The process and what it covers below."""
        return (self.identity, *self.descendants)

    def alive(self) -> bool:
        """Whether the process still runs the same program."""
        return self.identity.same_program()

    def with_descendants(self) -> ProcessTarget:
        """The same with all processes below it as they are now."""
        below = []
        for pid in proc.descendants(self.identity.pid):
            try:
                below.append(ProcessIdentity.of(pid))
            except TargetError:
                continue  # ended since it was listed
        return replace(self, descendants=tuple(below))

    def to_json(self) -> dict[str, Any]:
        """As events and reports hold it."""
        return {
            "kind": self.kind, "label": self.label, "command": self.command, "identity": self.identity.to_json(),
            "descendants": [one.to_json() for one in self.descendants],
        }  # fmt: skip


def command_names(argv: list[str]) -> set[str]:
    """The names that `command` matches: argv[0]'s base name, and for an interpreter its script's or module's."""
    return set(_names(argv)) - {""}


def _names(argv: list[str]) -> tuple[str, str]:
    """The base names of the program and of the script that it interprets, "" for none."""
    program = _base(argv[0]) if argv else ""
    interpreter = _INTERPRETER.fullmatch(program)
    if interpreter is None:
        return program, ""
    kind, rest = _KINDS.get(interpreter[1], interpreter[1]), iter(argv[1:])
    for word in rest:
        if _runs_text(kind, word):
            break
        if word in ("-m", "-jar") or (kind == "python" and re.fullmatch(r"-[a-zA-VYZ]+m", word)):
            return program, _base(next(rest, ""))
        if word in _TAKES_A_VALUE.get(kind, ()):
            next(rest, None)
        elif not word.startswith(("-", "+")):
            return program, _base(word)
    return program, ""


def _runs_text(kind: str, word: str) -> bool:
    """Whether code follows this option and not the name of a script: -c, and letters bundled with it as in `bash -lc`."""
    letter = _TEXT_LETTER.get(kind)
    return word in ("--eval", "--print") or (
        letter is not None and re.fullmatch(rf"-[a-zA-VYZ]*[{letter}]", word) is not None
    )


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def find_processes(
    *, pid: int | None = None, command: str | None = None, port: int | None = None, unit: str | None = None
) -> list[ProcessTarget]:
    """The processes that match the one criterion given, by pid; TargetError when none does.

    `command` is the exact base name of argv[0] or of an interpreter's script or module; `port` a TCP port that is
    listened on in this network namespace; `unit` a systemd unit, found by its cgroup. Zombies never match.
    """
    if pid is not None:
        owner = proc.process_of(pid)
        if owner not in (None, pid):
            raise TargetError(f"{pid} is a thread of process {owner}: name the process")
        found, what = [pid], f"pid {pid}"
    elif command is not None:
        found, what = [p for p in proc.pids() if command in command_names(proc.command_line(p))], f"command {command!r}"
    elif port is not None:
        inodes = proc.listening_inodes(port)
        found, what = (
            [p for p in proc.pids() if inodes & proc.socket_inodes(p)] if inodes else [],
            f"listening port {port}",
        )
    elif unit is not None:
        name = unit if "." in unit else f"{unit}.service"
        found = [p for p in proc.pids() if any(name in path.split("/") for path in cgroups.of_process(p).values())]
        what = f"unit {name}"
    else:
        raise TargetError("no selector: nothing is selected")
    targets = [target for one in found if (target := _target(one)) is not None]
    if not targets:
        raise TargetError(f"no process matches {what}{_hint(command, port)}")
    return targets


def _target(pid: int) -> ProcessTarget | None:
    try:
        identity = ProcessIdentity.of(pid)
    except TargetError:
        return None
    argv, stat = proc.command_line(pid), proc.read_stat(pid)
    program, script = _names(argv)
    comm = stat.comm if stat is not None else str(pid)
    return ProcessTarget(identity, script or program or comm)


def _hint(command: str | None, port: int | None) -> str:
    if command is not None:
        there = {name for pid in proc.pids() for name in command_names(proc.command_line(pid))} - {command}
        near = sorted(name for name in there if command.lower() in name.lower())
        if near:
            return f"; there is {', '.join(near[:5])} (the name must be exact)"
        return "; the name is the base name of argv[0], or of an interpreter's script or module"
    if port is not None:
        if proc.listening_inodes(port):
            return "; somebody listens there, but who it is may not be seen: run as that user or as root"
        return "; nobody listens on it in this network namespace"
    return ""
