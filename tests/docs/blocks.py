r"""The code blocks of a Markdown file, and what happens when they are run as a reader would.

A ```console block is run: lines that begin with `$ ` are commands (a `\` at the end goes on in the next line), the lines
after one are what it prints. A ```yaml, ```python, ```toml or ```go block whose first line is `# NAME` (`// NAME`) is a file of that name.
Everything else is only read. All commands of a document run in one shell, in order, in an empty folder.

A line of output that is `...` stands for any lines, `...` within a line for any text; what else is printed is passed over,
but each line that is shown must be printed, in that order.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Block", "Command", "Shown", "blocks_of", "commands_of", "run_document"]

MARK = "--- squall docs: command "
_FENCE = re.compile(r"^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILES = {"yaml", "python", "toml", "json", "go"}


@dataclass(frozen=True)
class Block:
    """One fenced block and the line it begins at."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        named = re.match(r"(?:#|//) ([\w./-]+\.\w+)\n", self.text) if self.language in _FILES else None
        return named[1] if named else None


@dataclass
class Command:
    """One command of a console block and the lines that it should print."""

    line: int
    words: str
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """A command with what it printed when it was run."""

    command: Command
    printed: str

    def missing(self) -> str | None:
        """The first shown line that was not printed in its turn, None when all were."""
        lines = iter(_plain(line) for line in self.printed.splitlines())
        for wanted in self.command.output:
            if wanted.strip() == "..." or not wanted.strip():
                continue
            pattern = ".*".join(re.escape(part) for part in re.split(r"\.\.\.", _plain(wanted)))
            if not any(re.fullmatch(pattern, line) for line in lines):
                return wanted
        return None


def _plain(line: str) -> str:
    return " ".join(line.split())


def blocks_of(text: str) -> list[Block]:
    """Every fenced block of a document."""
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def commands_of(blocks: list[Block]) -> list[Command]:
    """Every command of the console blocks."""
    commands: list[Command] = []
    for block in blocks:
        if block.language != "console":
            continue
        goes_on = False
        for offset, line in enumerate(block.text.splitlines(), start=1):
            if goes_on:
                commands[-1].words += "\n" + line
            elif line.startswith("$ "):
                commands.append(Command(block.line + offset, line.removeprefix("$ ")))
            else:
                commands[-1].output.append(line)
            goes_on = line.endswith("\\") and (goes_on or line.startswith("$ "))
    return commands


def _script(commands: list[Command]) -> str:
    steps = ["prev=0"]
    for number, command in enumerate(commands):
        steps.append(f"printf '\\n%s%d\\n' '{MARK}' {number}\n(exit $prev)\n{command.words}\nprev=$?")
    return "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n" + "\n".join(steps) + "\n"


def run_document(text: str, folder: Path, ports: dict[str, int], seconds_max: float) -> list[Shown]:
    """Write the files and run the commands of a document; `ports` says what to use for the ports that it names."""
    for documented, free in ports.items():
        text = re.sub(rf"(?<![\d.]){documented}\b", str(free), text)
    blocks = blocks_of(text)
    for block in blocks:
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    commands = commands_of(blocks)
    log = folder.parent / f"{folder.name}.log"
    env = {
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith(("COVERAGE", "LC_", "LANG", "SQUALL_COVERAGE", "GO"))
        },
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "SQUALL_STATE": str(folder.parent / f"{folder.name}-state"),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", _script(commands)], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            shell.wait(seconds_max)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = re.split(rf"^{re.escape(MARK)}\d+$", log.read_text(errors="replace"), flags=re.MULTILINE)[1:]
    return [Shown(command, text) for command, text in zip(commands, printed, strict=False)]
