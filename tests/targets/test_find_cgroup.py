"""A cgroup is found by its path; the root, where everything is, never is."""

from __future__ import annotations

import re

import pytest

from squall.errors import TargetError
from squall.kernel import cgroups
from squall.targets import find_cgroup
from tests import specimens


@pytest.mark.parametrize("controller", ["", "memory"])
def test_a_cgroup_is_found_by_its_full_and_by_its_short_path(controller: str) -> None:
    with specimens.own_cgroup(controller) as folder:
        full, short = find_cgroup(str(folder)), find_cgroup(folder.name)
        assert full == short
        assert full.folders == (str(folder),)
        assert full.label == f"cgroup /{folder.name}"
        assert full.alive()
        assert full.to_json()["folders"] == [str(folder)]
    assert not full.alive()


def test_a_cgroup_that_was_made_anew_is_another() -> None:
    with specimens.own_cgroup() as folder:
        before = find_cgroup(str(folder))
        folder.rmdir()
        folder.mkdir()
        assert not before.alive()
        assert find_cgroup(str(folder)).key != before.key


def test_the_same_name_in_two_hierarchies_is_one_target() -> None:
    with specimens.own_cgroup("memory") as first:
        cpu = next((tree.mount for tree in cgroups.hierarchies() if tree.controllers == ("cpu",)), None)
        if cpu is None:
            pytest.skip("this machine has one cgroup hierarchy")
        second = first.parents[1] / cpu / first.name
        second.mkdir()
        try:
            assert set(find_cgroup(first.name).folders) == {str(first), str(second)}
            assert find_cgroup(str(first)).folders == (str(first),)
        finally:
            second.rmdir()


@pytest.mark.parametrize("path", ["/", ".", "", "/sys/fs/cgroup/x/.."])
def test_a_root_is_refused(path: str) -> None:
    with pytest.raises(TargetError, match=r"is a root cgroup|there is no cgroup"):
        find_cgroup(path)


def test_every_mount_itself_is_refused() -> None:
    for tree in cgroups.hierarchies():
        with pytest.raises(TargetError, match="is a root cgroup: everything on the machine is in it"):
            find_cgroup(tree.mount)


def test_what_is_not_there_is_said_with_the_places_that_were_looked_at() -> None:
    with pytest.raises(TargetError, match=re.escape("there is no cgroup no/such/group; looked below /sys/fs/cgroup")):
        find_cgroup("no/such/group")


def test_a_path_out_of_the_cgroups_is_refused() -> None:
    with pytest.raises(TargetError, match="leads out of the cgroup file system"):
        find_cgroup("../../etc")
