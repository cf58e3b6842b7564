"""Functions of Go programs are found by name, stripped or not; tables of other layouts are refused."""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from squall.kernel.elf import Elf, ImageError
from squall.kernel.gosym import GoFunctions, version_of
from tests.programs.build import c_program, go_program

if TYPE_CHECKING:
    from pathlib import Path

STRIPPED = "-ldflags=-s -w"
NAMES = (
    "net/http.serverHandler.ServeHTTP",
    "net/http.(*conn).serve",
    "runtime.gopark",
    "main.(*shop).order",
    "main.main",
)
BUILDS = {
    "static": (),
    "stripped": (STRIPPED,),
    "position independent": ("-buildmode=pie",),
    "position independent, stripped": ("-buildmode=pie", STRIPPED),
}


def symbols(path: Path) -> dict[str, int]:
    """As Go's own tool sees them."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    rows = subprocess.run([go, "tool", "nm", str(path)], capture_output=True, text=True, check=True).stdout
    fields = (row.split(maxsplit=2) for row in rows.splitlines())
    return {name: int(address, 16) for address, kind, name in (row for row in fields if len(row) == 3) if kind in "Tt"}


@pytest.mark.parametrize("flags", BUILDS.values(), ids=BUILDS)
def test_a_function_is_where_its_code_begins(flags: tuple[str, ...]) -> None:
    unstripped = tuple(flag for flag in flags if flag != STRIPPED)
    wanted = symbols(go_program("handlers", flags=unstripped))
    path = go_program("handlers", flags=flags)
    with Elf.open(str(path)) as elf:
        functions = GoFunctions(elf)
        assert functions.stripped == (STRIPPED in flags)
        code = {name: functions.address(name) for name in NAMES}
        assert functions.address("main.nothing") is None
        assert functions.address("http.serverHandler.ServeHTTP") is None  # a part of a name is another name
        image = path.read_bytes()
        prologues = {image[functions.offset(name) or 0 :][:1] for name in NAMES}
    assert code == {name: wanted[name] for name in NAMES}
    assert prologues <= {b"\x49", b"\x4c", b"\x55", b"\x48", b"\x4d"}  # the stack check, or the frame at once


@pytest.mark.parametrize("flags", [(), ("-buildmode=pie",)], ids=["static", "position independent"])
def test_the_table_says_the_same_as_the_symbols(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Without Go's linker: a binary from which strip(1) took the symbols."""
    if shutil.which("strip") is None:
        pytest.skip("needs strip: apt-get install binutils")
    path = tmp_path / "stripped"
    original = go_program("handlers", flags=flags)
    subprocess.run(["strip", "-o", str(path), str(original)], check=True)
    with Elf.open(str(original)) as full, Elf.open(str(path)) as bare:
        for name in NAMES:
            assert GoFunctions(bare).address(name) == GoFunctions(full).address(name)
        begin = GoFunctions(full).address("main.main")
        assert begin is not None
        assert begin < GoFunctions(bare).end(begin) == GoFunctions(full).end(begin)
        assert "main.(*shop).order" in GoFunctions(bare).matching("shop).order")
        with pytest.raises(ImageError, match="no function that begins"):
            GoFunctions(bare).end(begin + 1)


def test_a_program_of_another_language_is_refused() -> None:
    with Elf.open(str(c_program("clock"))) as elf, pytest.raises(ImageError, match="no Go program"):
        GoFunctions(elf)


@pytest.mark.parametrize(
    ("magic", "says"),
    [(0xFFFFFFFB, "older than Go 1.16"), (0xFFFFFFF2, r"layout \(0xfffffff2\)"), (0, r"layout \(0x0\)")],
)
def test_a_table_of_another_layout_is_refused(magic: int, says: str) -> None:
    image = bytearray(go_program("handlers", flags=(STRIPPED,)).read_bytes())
    section = Elf(bytes(image)).section(".gopclntab")
    assert section is not None
    struct.pack_into("<I", image, section.offset, magic)
    with pytest.raises(ImageError, match=says):
        GoFunctions(Elf(bytes(image)))


@pytest.mark.parametrize("magic", [0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1], ids=["1.16", "1.18", "1.20"])
def test_each_known_layout_is_read(magic: int) -> None:
    image = made(magic)
    functions = GoFunctions(Elf(image))
    assert (functions.address("main.first"), functions.address("main.second")) == (0x401000, 0x401040)
    assert functions.end(0x401000) == 0x401040
    assert functions.end(0x401040) == 0x401080
    assert functions.address("main") is None
    assert functions.offset("main.second") == 0x1040


def made(magic: int) -> bytes:
    """A Go program of two functions, as small as can be, with the table of functions in the layout of `magic`."""
    names = b"\0main.first\0main.second\0"
    absolute = magic == 0xFFFFFFFA
    header = 8 + 8 * (7 if absolute else 8)
    functions_at = header + (len(names) + 7 & ~7)
    row = "<QQ" if absolute else "<II"
    base = 0x401000 if absolute else 0
    facts = struct.calcsize(row) * 2 + struct.calcsize(row) // 2
    rows = struct.pack(row, base, facts) + struct.pack(row, base + 0x40, facts + 16)
    rows += struct.pack("<Q" if absolute else "<I", base + 0x80)
    for entry, name in ((base, 1), (base + 0x40, 12)):
        rows += struct.pack("<Qi4x" if absolute else "<Ii8x", entry, name)
    words = [2, 0, *([] if absolute else [0x401000]), header, 0, 0, 0, functions_at]
    table = struct.pack("<IHBB", magic, 0, 1, 8) + struct.pack(f"<{len(words)}Q", *words)
    table = (table + names).ljust(functions_at, b"\0") + rows
    return elf_with({".text": (0x401000, 0x1000, bytes(0x100)), ".gopclntab": (0x402000, 0x2000, table)})


def elf_with(parts: dict[str, tuple[int, int, bytes]]) -> bytes:
    """An ELF file with these sections (address, offset, contents), all of it executable."""
    text = b"\0" + b"".join(name.encode() + b"\0" for name in (*parts, ".names"))
    image = bytearray(0x4000)
    counts = (64, 56, 1, 64, len(parts) + 2, len(parts) + 1)
    ident = b"\x7fELF\x02\x01\x01"
    struct.pack_into("<16sHHIQQQIHHHHHH", image, 0, ident, 2, 62, 1, 0x401000, 64, 0x3000, 0, *counts)
    struct.pack_into("<IIQQQQQQ", image, 64, 1, 5, 0, 0x400000, 0x400000, 0x3000, 0x3000, 0x1000)
    at = 0x3040
    for name, (address, offset, contents) in parts.items():
        image[offset : offset + len(contents)] = contents
        struct.pack_into(
            "<IIQQQQIIQQ", image, at, text.index(name.encode()), 1, 6, address, offset, len(contents), 0, 0, 1, 0
        )
        at += 64
    struct.pack_into("<IIQQQQIIQQ", image, at, text.index(b".names"), 3, 0, 0, 0x3800, len(text), 0, 0, 1, 0)
    image[0x3800 : 0x3800 + len(text)] = text
    return bytes(image)


@pytest.mark.parametrize(
    ("text", "release"),
    [("go1.26.8", (1, 26)), ("go1.27-devel_abc", (1, 27)), ("go1.17", (1, 17)), ("", (0, 0)), ("devel", (0, 0))],
)
def test_a_release_is_compared_as_numbers(text: str, release: tuple[int, int]) -> None:
    assert version_of(text) == release
