"""ELF files are read for what they are; what is not one, or is damaged, is refused and never guessed at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.kernel.elf import Elf, ImageError
from tests.programs.build import c_program, go_program

if TYPE_CHECKING:
    from pathlib import Path


def interpreter() -> str:
    return os.path.realpath(sys.executable)


def test_a_program_says_what_and_where_it_is() -> None:
    with Elf.open(interpreter()) as elf:
        text = elf.section(".text")
        assert text is not None
        assert elf.executable(text.address)
        assert elf.file_offset(text.address) == text.offset
        assert elf.address_of(text.offset) == text.address
        assert not elf.is_go
        assert elf.go_version == elf.go_build_id == ""
        with pytest.raises(ImageError, match="nothing at the address"):
            elf.file_offset(1 << 60)


def test_symbols_are_those_that_nm_shows() -> None:
    path = c_program("clock")
    if shutil.which("nm") is None:
        pytest.skip("needs nm to compare with: apt-get install binutils")
    rows = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout.split("\n")
    wanted = {row.split()[2]: int(row.split()[0], 16) for row in rows if len(row.split()) == 3}
    with Elf.open(str(path)) as elf:
        assert elf.symbol("main") is not None
        for name, address in wanted.items():
            assert address in {one.address for one in elf.symbols_named(name.partition("@")[0])}
        assert {one.name for one in elf.symbols()} >= {"main"}
        assert elf.symbols_named("mai") == elf.symbols_named("ain") == []  # neither the beginning nor the end of a name


def test_a_go_program_says_its_release_and_build() -> None:
    path = go_program("handlers")
    with Elf.open(str(path)) as elf:
        assert elf.is_go
        assert elf.go_version.startswith("go1.")
        assert elf.go_build_id.count("/") == 3
        release = subprocess.run([shutil.which("go") or "go", "version", str(path)], capture_output=True, text=True)  # noqa: PLW1510
        assert elf.go_version in release.stdout


@pytest.mark.parametrize("contents", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01\x01" + bytes(80), b"\x7fELF\x02\x01\x01"])
def test_what_is_no_elf_file_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(contents)
    with pytest.raises(ImageError, match=r"ELF file|empty"):
        Elf.open(str(path))


@given(cut=st.integers(64, 20_000))
def test_what_is_cut_short_is_refused_or_read_as_far_as_it_goes(cut: int) -> None:
    image = c_program("clock").read_bytes()[:cut]
    try:
        elf = Elf(image)
    except ImageError:
        return
    list(elf.symbols())
    list(elf.notes())


@given(places=st.lists(st.tuples(st.integers(0, 16_000), st.integers(0, 255)), min_size=1, max_size=30))
def test_what_is_damaged_is_refused_or_read_without_any_other_error(places: list[tuple[int, int]]) -> None:
    image = bytearray(c_program("clock").read_bytes())
    for at, value in places:
        image[at % len(image)] = value
    try:
        elf = Elf(bytes(image))
        list(elf.symbols())
        elf.symbols_named("main")
        assert isinstance(elf.build_id + elf.go_build_id + elf.go_version, str)
    except ImageError:
        return
