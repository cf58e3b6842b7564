"""The places where programs make system calls are found, with the calls that they make."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.kernel import process_memory, syscall_stub
from squall.kernel.syscall_numbers import NUMBERS
from squall.kernel.syscall_sites import ANY, CAVE, Module, modules
from tests.file_programs import Language, file_program
from tests.programs.build import c_program

if TYPE_CHECKING:
    from squall.kernel.syscall_sites import Site

ROOT = Path(__file__).resolve().parents[2]
X86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="programs of x86-64 are read")


def named(found: list[Module], *names: str) -> list[Site]:
    numbers = {NUMBERS[name] for name in names}
    return [site for module in found for site in module.sites if site.number in numbers]


@X86_64
@pytest.mark.parametrize("language", ["c", "c-static", "python"])
def test_a_c_library_makes_each_call_in_places_of_its_own(language: Language, tmp_path: Path) -> None:
    with file_program(language, tmp_path) as program:
        found = modules(program.pid)
        for name in ("fsync", "pwrite64", "pread64", "openat"):
            sites = named(found, name)
            assert sites, name
            assert any(site.patchable for site in sites), name
        for module in found:
            for site in module.sites:
                code = process_memory.read(program.pid, site.address + module.bias, 2)
                assert code == b"\x0f\x05", f"{module.name} {site.address:#x}"
                if site.loads:
                    assert site.address - site.loads == 5
                if site.cave:
                    assert process_memory.read(program.pid, site.cave + module.bias, CAVE) == site.padding


@X86_64
@pytest.mark.parametrize("language", ["go", "go-stripped"])
def test_a_go_program_makes_most_calls_in_one_place(language: Language, tmp_path: Path) -> None:
    with file_program(language, tmp_path) as program:
        (module,) = modules(program.pid)
        generic = [site for site in module.sites if site.number == ANY]
        assert generic
        assert all(site.patchable for site in generic)
        assert named([module], "write", "openat"), "the runtime's own"


@X86_64
def test_a_program_that_was_replaced_on_disk_is_read_as_it_runs(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: run the tests with sudo to see this")
    copy = tmp_path / "program"
    shutil.copy(c_program("files", flags=("-static",)), copy)
    with subprocess.Popen([copy, str(tmp_path / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        before = named(modules(process.pid), "fsync")
        copy.unlink()
        copy.write_bytes(b"another program")
        assert before
        assert named(modules(process.pid), "fsync") == before
        process.kill()


@X86_64
def test_caves_are_used_once_and_lie_outside_functions_bodies(tmp_path: Path) -> None:
    with file_program("c", tmp_path) as program:
        for module in modules(program.pid):
            caves = sorted(site.cave for site in module.sites if site.cave)
            assert all(later - earlier >= CAVE for earlier, later in pairwise(caves))
            assert not any(
                site.cave < other.address + 2 and other.address < site.cave + CAVE
                for site in module.sites if site.cave for other in module.sites
            )  # fmt: skip


def test_the_stub_was_built_from_its_sources() -> None:
    sources = b"".join((ROOT / "native" / f"syscall_stub.{kind}").read_bytes() for kind in ("c", "h", "S", "lds"))
    assert syscall_stub.source_hash() == hashlib.sha256(sources).hexdigest(), "run tools/build-native"


def test_a_piece_is_recognised_wherever_it_lies() -> None:
    base = 0x7F00_0000_0000
    loads = [b"", bytes.fromhex("b84a000000"), b""]
    area = b"".join(
        syscall_stub.piece(base, syscall_stub.piece_address(base, index), base - 1000 * index - 0x3300_0000, load)
        for index, load in enumerate(loads)
    )
    found = syscall_stub.pieces(base, area + bytes(syscall_stub.PIECE_SIZE * 2))
    assert found == {(base - 1000 * index - 0x3300_0000, load): index for index, load in enumerate(loads)}
