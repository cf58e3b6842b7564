"""A container of this machine, found without asking its runtime."""

from __future__ import annotations

import re
from dataclasses import fields

from squall.errors import InputError, TargetError
from squall.kernel.containers import Container, StateFolders, containers
from squall.targets.cgroup import CgroupTarget, cgroup_of_folders
from squall.targets.configuration import config_files, strings

__all__ = ["find_containers", "state_folders"]

_PREFIX = re.compile(r"[0-9a-f]{4,64}")
"""Shorter beginnings of an id are too easily a name with a slip in it."""
_NAMED_MOST = 8
_RUNTIMES = tuple(field.name for field in fields(StateFolders))


def state_folders() -> StateFolders:
    """Where the runtimes keep their state: the usual places, else what `[containers]` of the configuration says.

    It has lists of folders: `docker` (its data-root), `storage` (Podman's and CRI-O's graphroot), `containerd` (its
    state). InputError for anything else.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path, content in config_files():
        table = content.get("containers", {})
        if not isinstance(table, dict) or set(table) - set(_RUNTIMES):
            raise InputError(f"{path}: `containers` must be a table; its keys are {', '.join(_RUNTIMES)}")
        for key, value in table.items():
            found[key] = tuple(strings(path, f"containers.{key}", value, "folders"))
    return StateFolders(**found)


def find_containers(name: str, state: StateFolders | None = None) -> list[CgroupTarget]:
    """The running containers of this id or name, as the cgroups they are; TargetError for none.

    As Docker does: a whole id, else a name, else the beginning of one id (at least 4 digits). A pod's container is
    called NAME, POD/NAME or NAMESPACE/POD/NAME, so a name may match several; the beginning of an id may not.
    """
    known = containers(state or state_folders())
    matches = [one for one in known if one.id == name] or [one for one in known if name in one.names]
    if not matches and _PREFIX.fullmatch(name):
        matches = [one for one in known if one.id.startswith(name)]
        running = [one for one in matches if one.folders]
        if len(running) > 1:
            raise TargetError(f"{len(running)} containers have an id that begins with {name}: {_listed(running)}")
    running = [one for one in matches if one.folders]
    if not running:
        raise TargetError(_none(name, matches, [one for one in known if one.folders]))
    return [cgroup_of_folders(one.path, one.folders, one.label) for one in running]


def _none(name: str, matches: list[Container], running: list[Container]) -> str:
    if matches:
        return f"the container {matches[0].label} does not run: it has no cgroup"
    if not running:
        return (
            f"there is no container {name!r}: no container of Docker, containerd, Podman or CRI-O runs on this machine"
        )
    return f"there is no container {name!r}; there is {_listed(running)}"


def _listed(some: list[Container]) -> str:
    return ", ".join(one.label for one in some[:_NAMED_MOST]) + (", ..." if len(some) > _NAMED_MOST else "")
