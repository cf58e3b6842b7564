"""Control groups: which there are, who is in which, what limits they set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.kernel import cgroups, own
from tests import specimens


def test_the_hierarchies_are_those_that_are_mounted() -> None:
    mounts = {
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2].startswith("cgroup")
    }
    assert {tree.mount for tree in cgroups.hierarchies()} == mounts
    assert sum(tree.v2 for tree in cgroups.hierarchies()) <= 1


def test_a_folder_is_found_below_the_part_of_the_tree_that_is_mounted() -> None:
    whole = cgroups.Hierarchy("/sys/fs/cgroup/cpu", "/", ("cpu",))
    part = cgroups.Hierarchy("/sys/fs/cgroup/cpu", "/docker/1", ("cpu",))
    assert whole.folder("/a/b") == Path("/sys/fs/cgroup/cpu/a/b")
    assert part.folder("/docker/1") == Path("/sys/fs/cgroup/cpu")
    assert part.folder("/docker/1/x") == Path("/sys/fs/cgroup/cpu/x")
    assert part.folder("/docker/12") is None


@pytest.mark.parametrize("controller", ["", "memory", "cpu"])
def test_a_cgroup_of_ones_own_is_told_from_one_that_is_shared(controller: str) -> None:
    with specimens.own_cgroup(controller) as folder, specimens.sleeper() as specimen:
        assert str(folder) not in cgroups.own_cgroups(specimen.pid)
        own.join(str(folder), specimen.pid)
        assert cgroups.own_cgroups(specimen.pid) == (str(folder),)
        assert any(path.endswith(f"/{folder.name}") for path in cgroups.of_process(specimen.pid).values())


def test_a_gone_process_is_in_no_cgroup() -> None:
    with specimens.sleeper() as specimen:
        pid = specimen.pid
    assert cgroups.of_process(pid) == {}
    assert cgroups.own_cgroups(pid) == ()


def test_joining_what_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        own.join("/sys/fs/cgroup/squall-never-made")


def test_the_tightest_memory_limit_counts_also_that_of_a_group_above() -> None:
    with specimens.own_cgroup("memory") as folder:
        assert cgroups.memory_limit([str(folder)]) in (None, cgroups.memory_limit([str(folder.parent)]))
        specimens.limit_memory(folder, 64 << 20)
        if (folder / "cgroup.subtree_control").exists():
            (folder / "cgroup.subtree_control").write_text("+memory")
        below = folder / "below"
        below.mkdir()
        try:
            assert cgroups.memory_limit([str(below)]) == 64 << 20
            specimens.limit_memory(below, 32 << 20)
            assert cgroups.memory_limit([str(below)]) == 32 << 20
            assert cgroups.memory_limit([str(folder), str(below)]) == 32 << 20
        finally:
            below.rmdir()


def test_there_is_no_limit_where_there_is_no_cgroup() -> None:
    assert cgroups.memory_limit([]) is None
    assert cgroups.memory_limit(["/nowhere"]) is None


def test_this_process_has_no_cgroup_apart_from_itself() -> None:
    assert cgroups.own_cgroups(os.getpid()) == ()
