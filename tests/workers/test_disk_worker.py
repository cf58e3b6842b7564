"""Disk space is taken and given back by files without a name; what must stay free stays free."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.actions import Worker
from squall.actions.worker import surviving
from squall.errors import ActionFailed
from squall.workers import disk
from squall.workers.lifeline import Refused
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Working = Callable[..., AbstractContextManager[tuple[Worker, int]]]

MIB = 1 << 20
ON_DISK = "/var/tmp"  # noqa: S108 - files without a name are made here


@pytest.fixture
def small() -> Iterator[Path]:
    """A file system of 64 MiB."""
    with specimens.small_disk(64) as folder:
        yield folder


def free(folder: Path) -> int:
    """MiB that anybody may still take."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize // MIB


@pytest.mark.parametrize("how", [{"fill_bytes": 40 * MIB}, {"fill_share": 0.625}])
def test_space_is_taken_without_a_name_and_given_back(
    working: Working, token: str, small: Path, how: dict[str, object]
) -> None:
    with working("disk", path=str(small), spare_bytes=MIB, **how) as (worker, _):
        specimens.wait_for(lambda: free(small) == 24, "40 MiB are taken")
        assert list(small.iterdir()) == []
        assert worker.counters()["disk_bytes"] == pytest.approx(40 * MIB, rel=0.05)
        assert surviving(token)[0].comm == "squall-disk"
    assert free(small) == 64


def test_the_amount_can_be_changed(working: Working, small: Path) -> None:
    config: dict[str, object] = {"path": str(small), "spare_bytes": MIB}
    with working("disk", **config, fill_bytes=20 * MIB) as (worker, life_line):
        for amount in (50, 10):
            assert worker.become(replace(worker, config={**config, "fill_bytes": amount * MIB}), (life_line,))
            specimens.wait_for(lambda: free(small) == 64 - amount, f"{amount} MiB are taken")  # noqa: B023 - called at once


def test_what_others_take_meanwhile_is_not_taken_from_the_spare(working: Working, small: Path) -> None:
    """It wants 40 of 64 MiB; while it runs somebody takes 30: it stops where 10 MiB are left, and says so."""
    config: dict[str, object] = {"path": str(small), "spare_bytes": 10 * MIB}
    with working("disk", **config, fill_bytes=4 * MIB) as (worker, life_line), (small / "theirs").open("wb") as theirs:
        specimens.wait_for(lambda: free(small) == 60, "4 MiB are taken")
        assert worker.become(
            replace(worker, config={**config, "fill_bytes": 4 * MIB, "write_bytes_per_s": 100 * MIB}), (life_line,)
        )
        os.posix_fallocate(theirs.fileno(), 0, 45 * MIB)
        specimens.wait_for(lambda: free(small) <= 11, "it writes until little is left")
        assert free(small) >= 9


@pytest.mark.slow
def test_it_writes_at_its_rate_in_a_bounded_file(working: Working, token: str, small: Path) -> None:
    with working("disk", path=str(small), spare_bytes=8 * MIB, write_bytes_per_s=20 * MIB):
        (stat,) = surviving(token)

        def written() -> int:
            rows = Path(f"/proc/{stat.pid}/io").read_text().splitlines()
            return next(int(row.split()[1]) for row in rows if row.startswith("wchar"))

        specimens.wait_for(lambda: written() > MIB, "it has begun")
        before, began = written(), os.times().elapsed
        specimens.wait_for(lambda: os.times().elapsed - began > 1.5, "the measurement is over")
        rate = (written() - before) / (os.times().elapsed - began) / MIB
        assert rate == pytest.approx(20, rel=0.3)
        specimens.wait_for(lambda: written() > 70 * MIB, "it has written more than there is space")
        assert free(small) >= 8
        assert list(small.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"path": "/no/such/folder", "fill_bytes": MIB}, "/no/such/folder cannot be used: No such file or directory"),
        ({"path": "/etc/passwd", "fill_bytes": MIB}, "/etc/passwd cannot be used: Not a directory"),
        ({"path": "/proc/self", "fill_bytes": MIB}, "is in 'proc', which is the kernel's, not a disk"),
        ({"path": "/sys/kernel", "fill_bytes": MIB}, "is in 'sys'"),
        ({"path": "/dev/shm", "fill_bytes": MIB}, "is in 'dev'"),  # noqa: S108 - refused
        (
            {"path": ON_DISK, "fill_bytes": 1 << 60},
            "cannot be taken in /var/tmp: .* are free, and 1 MiB of it must stay so",
        ),
        ({"path": ON_DISK, "fill_share": 1.0}, "cannot be taken in /var/tmp: .* and 1 MiB of it must stay so"),
        ({"path": ON_DISK, "fill_share": 0.0000001}, "is fuller than 0% already"),
    ],
)
def test_what_cannot_be_done_is_refused_beforehand(token: str, config: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        disk.check(disk.Config(**config, spare_bytes=MIB))  # type: ignore[arg-type]  # the parametrisation's
    with pytest.raises(ActionFailed, match=said):
        Worker(token, "squall.workers.disk", "test", {**config, "spare_bytes": MIB}).do()
    assert not surviving(token)


def test_a_link_into_the_kernels_files_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(Refused, match="is in 'proc'"):
        disk.check(disk.Config(path=str(tmp_path / "link"), spare_bytes=0, fill_bytes=1))


def test_a_read_only_file_system_is_refused(small: Path) -> None:
    import subprocess

    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(Refused, match=r"nothing can be written in .*: Read-only file system"):
        disk.check(disk.Config(path=str(small), spare_bytes=0, fill_bytes=MIB))


def test_where_files_need_a_name_it_is_taken_away_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file system without O_TMPFILE (NFS, FUSE), played by a kernel call that says so."""
    real, asked = os.open, []

    def open_without_tmpfile(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        asked.append(path)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_without_tmpfile)
    disk.check(disk.Config(path=str(tmp_path), spare_bytes=0, fill_bytes=MIB))
    assert asked[-1].startswith(".squall-")
    assert len(asked[-1]) > 32
    assert list(tmp_path.iterdir()) == []


def test_the_purpose_is_said_in_words() -> None:
    config = disk.Config(path="/data", spare_bytes=0, fill_share=0.9, write_bytes_per_s=10 * MIB)
    assert disk.purpose(config) == "fill the file system of /data to 90% and write and sync 10 MiB/s in /data"
    assert disk.purpose(disk.Config(path="/data", spare_bytes=0, fill_bytes=MIB)) == "take 1 MiB in /data"
