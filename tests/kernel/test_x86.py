"""Instruction lengths agree with the disassembler's on every instruction of real programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from squall.kernel import x86
from tests.programs.build import go_program

LINE = re.compile(r"\s+[0-9a-f]+:\t((?:[0-9a-f]{2} )+)\s*\t?(.*)")


def disassembled(path: Path) -> list[tuple[bytes, str]]:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("needs objdump: apt-get install binutils")
    argv = [objdump, "-d", "-w", "-j", ".text", str(path)]
    listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = (LINE.match(line) for line in listing.splitlines())
    return [(bytes.fromhex(row[1]), row[2]) for row in rows if row and "(bad)" not in row[2]]


def libc() -> Path:
    found = list(Path("/").glob("lib*/x86_64-linux-gnu/libc.so.6"))
    if not found:
        pytest.skip("there is no libc for x86-64 here")
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["libc", "go"])
def test_every_instruction_is_as_long_as_the_disassembler_says(program: str) -> None:
    rows = set(disassembled(libc() if program == "libc" else go_program("files")))
    assert len(rows) > 10_000
    assert [text for code, text in rows if x86.length(code + b"\x90" * 16, 0) != len(code)] == []


def test_instructions_follow_each_other_to_the_end() -> None:
    code = bytes.fromhex("f30f1efa b84a000000 0f05 483d00f0ffff 7701 c3 48b88877665544332211 c5f877")
    assert [size for _, size in x86.instructions(code, 0, len(code))] == [4, 5, 2, 6, 2, 1, 10, 3]


@pytest.mark.parametrize("code", ["06", "0f04", "0f", "b84a00", "c4", "66666666666666666666666666666666"])
def test_what_is_no_instruction_is_an_error(code: str) -> None:
    with pytest.raises(x86.Undecodable):
        x86.length(bytes.fromhex(code), 0)
