"""Programs in three languages that do with a file what a test tells them, and say which errors they got."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.programs.build import SOURCES, c_program, go_program
from tests.specimens import Specimen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FileProgram", "Language", "Round", "file_program"]

Language = Literal["go", "go-stripped", "c", "c-static", "python"]


@dataclass(frozen=True)
class Round:
    """One open, write, fsync and read of a byte: the name of the error that each got, "" for none."""

    open: str
    write: str
    sync: str
    read: str
    took_us: int


NORMAL = ("", "", "", "")


@dataclass
class FileProgram(Specimen):
    """A program that waits for commands."""

    path: Path

    def tell(self, command: str) -> None:
        """Send a command without waiting for its answer."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(command.encode() + b"\n")
        self.popen.stdin.flush()

    def answer(self) -> str:
        """The next line that it says."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, f"the program has ended: {self.popen.poll()}"
        return line.decode().strip()

    def ask(self, command: str) -> str:
        """Send a command; its answer."""
        self.tell(command)
        return self.answer()

    def round(self, command: str = "round") -> Round:
        """Let it do a round."""
        return self.read_round(self.ask(command))

    def read_round(self, text: str) -> Round:
        """A round from what was said of it."""
        *numbers, took = (int(word) for word in text.split())
        return Round(*(errno.errorcode[number] if number else "" for number in numbers), took)

    def errors(self) -> tuple[str, str, str, str]:
        """What open, write, sync and read got in one round."""
        done = self.round()
        return (done.open, done.write, done.sync, done.read)


def _argv(language: Language) -> list[str]:
    if language == "go":
        return [str(go_program("files"))]
    if language == "go-stripped":
        return [str(go_program("files", flags=("-ldflags=-s -w",)))]
    if language == "python":
        return [sys.executable, "-I", "-S", "-u", str(SOURCES / "files.py")]
    return [str(c_program("files", flags=("-static",) if language == "c-static" else ()))]


@contextmanager
def file_program(language: Language, folder: Path) -> Iterator[FileProgram]:
    """The program in this language, started on a file in this folder; ended when the test leaves."""
    path = folder / "data.txt"
    process = subprocess.Popen(
        [*_argv(language), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, start_new_session=True
    )
    program = FileProgram(process, path)
    try:
        assert program.answer() == "ready"
        yield program
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - both are pipes
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
