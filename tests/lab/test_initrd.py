"""The archive a guest starts with holds what it should, in the order it must be loaded."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from squall.errors import InputError
from squall.lab import Kernel
from squall.lab.initrd import NEEDED, Archive, build, in_order

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def made_up(tmp_path: Path) -> Kernel:
    """A kernel with three modules, of which one is compressed, and the needed ones built in."""
    modules = tmp_path / "lib" / "modules" / "1.2.3"
    modules.mkdir(parents=True)
    (modules / "leaf-a.ko.xz").write_bytes(lzma.compress(b"leaf"))
    for name in ("branch", "root_of_it"):
        (modules / f"{name}.ko").write_bytes(name.encode())
    (modules / "modules.dep").write_text(
        "leaf-a.ko.xz: branch.ko root_of_it.ko\nbranch.ko: root_of_it.ko\nroot_of_it.ko:\n"
    )
    (modules / "modules.builtin").write_text("".join(f"kernel/{name.replace('_', '-')}.ko\n" for name in NEEDED))
    return Kernel("made up", "1.2.3", modules / "vmlinuz", modules)


def listed(archive: bytes, folder: Path) -> list[str]:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox reads the archive; to have it: apt-get install busybox-static")
    done = subprocess.run([busybox, "cpio", "-idv"], input=archive, cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_modules_come_after_what_they_need_and_only_once(made_up: Kernel) -> None:
    names = [path.name for path in in_order(made_up, ["leaf_a", "branch", "not there", *NEEDED])]
    assert names == ["root_of_it.ko", "branch.ko", "leaf-a.ko.xz"]


def test_a_kernel_without_what_a_guest_needs_is_refused(made_up: Kernel) -> None:
    (made_up.modules / "modules.builtin").write_text("kernel/overlay.ko\n")
    with pytest.raises(InputError, match=r"1\.2\.3 has no module virtio_pci"):
        in_order(made_up, NEEDED)


def test_another_program_reads_the_archive(tmp_path: Path) -> None:
    archive = Archive()
    archive.add("folder", 0o40755)
    archive.add("folder/odd", 0o100600, b"12345")
    archive.add("folder/link", 0o120777, b"odd")
    archive.add("folder/empty", 0o100644)
    assert listed(archive.finish(), tmp_path)[:4] == ["folder", "folder/odd", "folder/link", "folder/empty"]
    assert (tmp_path / "folder" / "odd").read_bytes() == b"12345"
    assert (tmp_path / "folder" / "link").readlink().name == "odd"
    assert (tmp_path / "folder" / "empty").stat().st_size == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the archive has a device, which only root unpacks")
def test_modules_are_unpacked_and_words_stay_words(made_up: Kernel, tmp_path: Path) -> None:
    command = ["printf", "%s\n", "two words", "$HOME", "it's"]
    archive = build(made_up, "/bin/true", command, str(tmp_path), {"A": "b 'c'"}, ["leaf_a"])
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    listed(archive, unpacked)
    assert (unpacked / "modules.order").read_text() == "root_of_it.ko\nbranch.ko\nleaf-a.ko\n"
    assert (unpacked / "modules" / "leaf-a.ko").read_bytes() == b"leaf"
    done = subprocess.run(["sh", str(unpacked / "command")], capture_output=True, text=True, check=True)
    assert done.stdout == "two words\n$HOME\nit's\n"
    assert str(made_up.modules.parent) in (unpacked / "second").read_text()
