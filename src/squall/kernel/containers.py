"""Which containers this machine runs, from its cgroups and the files that the runtimes keep; no runtime is asked.

General layout: `Container` is what is known of one; `_in_cgroups` finds the running ones by the folders that runtimes
make, `_known` the names by their state files; `containers` puts both together by id. Where the formats are from:

- cgroup folders: runc and crun as Docker (`docker-ID.scope`, `/docker/ID`), containerd's CRI plugin
  (`cri-containerd-ID.scope`), nerdctl (`nerdctl-ID.scope`), Podman (`libpod-ID.scope`, `libpod-payload-ID`), CRI-O
  (`crio-ID.scope`) and the kubelet's cgroupfs driver (`/kubepods/.../podUID/ID`) name them.
- Docker: moby, daemon/container (`containers/ID/config.v2.json`: `ID`, `Name`, `Config.Labels`).
- Podman and CRI-O: containers/storage, containers.go (`DRIVER-containers/containers.json`: `id`, `names`, `metadata`).
- containerd: the OCI bundle of each task (`NAMESPACE/ID/config.json`: `annotations`, `linux.cgroupsPath`), with the
  annotations of its CRI plugin and of nerdctl.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squall.kernel import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Container", "StateFolders", "containers"]

_FOLDER = re.compile(
    r"(?:(docker|cri-containerd|containerd|nerdctl|libpod|libpod-payload|crio)-)?([0-9a-f]{64})(?:\.scope)?"
)
_RUNTIMES = {
    "docker": "Docker", "cri-containerd": "containerd", "containerd": "containerd", "nerdctl": "containerd",
    "libpod": "Podman", "libpod-payload": "Podman", "crio": "CRI-O",
}  # fmt: skip
_FILE_BYTES_MOST = 64 << 20


@dataclass(frozen=True, slots=True)
class StateFolders:
    """Where runtimes keep their state; a machine that keeps it elsewhere says so in Squall's configuration."""

    docker: tuple[str, ...] = ("/var/lib/docker",)
    storage: tuple[str, ...] = ("/var/lib/containers/storage", "/run/containers/storage")
    """Podman's and CRI-O's; those of the users' own containers are looked at too."""
    containerd: tuple[str, ...] = ("/run/containerd", "/run/k3s/containerd")


@dataclass(slots=True)
class Container:
    """A container: its id, every name that it may be called by, and its cgroup folders (none: it does not run)."""

    id: str
    runtime: str = ""
    names: list[str] = field(default_factory=list)
    """Its own first; for a pod's container also POD/NAME and NAMESPACE/POD/NAME."""
    path: str = ""
    """Its cgroup's, below the mounts."""
    folders: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """For people: "shop (4f797c539e6c)"; of a pod's container the name with the pod."""
        short = self.id[:12]
        pod = [name for name in self.names if name.count("/") == 1]
        name = pod[0] if pod else self.names[0] if self.names else ""
        return f"{name} ({short})" if name else short


def containers(state: StateFolders) -> list[Container]:
    """Every container that runs or is known of, running ones first, then by name."""
    found = _in_cgroups()
    for known, cgroup in _known(state):
        one = found.setdefault(known.id, Container(known.id))
        one.runtime = known.runtime or one.runtime
        one.names += [name for name in known.names if name not in one.names]
        if cgroup and not one.folders:
            one.path, one.folders = f"/{cgroup}", _folders(cgroup)
    return sorted(found.values(), key=lambda one: (not one.folders, one.label))


def _in_cgroups() -> dict[str, Container]:
    """The containers whose id is in their cgroup's name; in each hierarchy the outermost folder is its own."""
    found: dict[str, Container] = {}
    for tree in cgroups.hierarchies():
        here: set[str] = set()
        for folder in sorted(cgroups.below(tree.mount), key=len):
            match = _FOLDER.fullmatch(folder.rpartition("/")[2])
            if match is None or match[2] in here:
                continue
            here.add(match[2])
            one = found.setdefault(match[2], Container(match[2]))
            one.path = one.path or f"/{os.path.relpath(folder, tree.mount)}"
            one.runtime = one.runtime or _RUNTIMES.get(match[1] or "", "Docker" if "/docker/" in folder else "")
            one.folders.append(folder)
    return found


def _folders(cgroup: str) -> list[str]:
    """The folders that there are of a cgroup with this path below the mounts."""
    places = (f"{tree.mount.rstrip('/')}/{cgroup}" for tree in cgroups.hierarchies())
    return [folder for folder in places if os.path.isfile(f"{folder}/cgroup.procs")]


def _known(state: StateFolders) -> Iterator[tuple[Container, str]]:
    """What the runtimes have written down, each with the cgroup path that is said there ("" for none)."""
    for folder in state.docker:
        for file in _matching(folder, "containers/*/config.v2.json"):
            yield from ((one, "") for one in _docker(_read(file)))
    for folder in (*state.storage, *_users_storage()):
        for name in ("containers.json", "volatile-containers.json"):
            for file in _matching(folder, f"*-containers/{name}"):
                yield from ((one, "") for one in _storage(_read(file)))
    for folder in state.containerd:
        for file in _matching(folder, "io.containerd.runtime.v*/*/*/config.json"):
            yield from _task(file.parent.name, _read(file))


def _matching(folder: str, pattern: str) -> list[Path]:
    try:
        return sorted(Path(folder).glob(pattern))
    except OSError:
        return []


def _users_storage() -> Iterator[str]:
    """Where Podman keeps the containers of ordinary users; others' homes are seen by root alone."""
    homes = [str(path) for path in _matching("/home", "*")] if os.geteuid() == 0 else []
    home = os.environ.get("HOME", "")
    for one in dict.fromkeys([*homes, *([home] if home else [])]):
        yield f"{one}/.local/share/containers/storage"


def _read(file: Path) -> Any:
    """JSON as it is written by others: None where it is not there (any more), not readable, or not JSON."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if file.stat().st_size <= _FILE_BYTES_MOST:
            return json.loads(file.read_bytes())
    return None


def _text(data: object, *path: str) -> str:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""


def _of_a_pod(name: str, pod: str, namespace: str) -> list[str]:
    return [one for one in (name, pod and f"{pod}/{name}", pod and namespace and f"{namespace}/{pod}/{name}") if one]


def _docker(data: object) -> Iterator[Container]:
    if id_ := _text(data, "ID"):
        names = [name] if (name := _text(data, "Name").lstrip("/")) else []
        label = "io.kubernetes.container.name", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"
        of_pod = [_text(data, "Config", "Labels", key) for key in label]
        yield Container(id_, "Docker", (_of_a_pod(*of_pod) if of_pod[0] not in ("", "POD") else []) + names)


def _storage(data: object) -> Iterator[Container]:
    for one in data if isinstance(data, list) else ():
        if not (id_ := _text(one, "id")):
            continue
        names = [name for name in one.get("names") or () if isinstance(name, str)]
        about: object = None
        with contextlib.suppress(ValueError, RecursionError):
            about = json.loads(_text(one, "metadata") or "null")
        of_pod: list[str] = []
        crio = bool(_text(about, "pod-id"))
        if crio and not (isinstance(about, dict) and about.get("pod")):
            of_pod = _of_a_pod(*(_text(about, key) for key in ("metadata-name", "pod-name", "namespace")))
        yield Container(id_, "CRI-O" if crio else "Podman", of_pod + names)


def _task(id_: str, data: object) -> Iterator[tuple[Container, str]]:
    if not isinstance(data, dict):
        return
    kept = "annotations"
    names = [name] if (name := _text(data, kept, "nerdctl/name")) else []
    if _text(data, kept, "io.kubernetes.cri.container-type") != "sandbox":
        keys = (
            "io.kubernetes.cri.container-name",
            "io.kubernetes.cri.sandbox-name",
            "io.kubernetes.cri.sandbox-namespace",
        )
        if (of_pod := [_text(data, kept, key) for key in keys])[0]:
            names = _of_a_pod(*of_pod) + names
    yield (
        Container(id_, "" if _FOLDER.fullmatch(id_) else "containerd", names),
        _cgroup_of(_text(data, "linux", "cgroupsPath")),
    )


def _cgroup_of(said: str) -> str:
    """The cgroup of an OCI bundle: a path, or "SLICE:PREFIX:NAME" for systemd's driver, which makes a scope of it."""
    if said.count(":") != 2:  # noqa: PLR2004 - runc's own form
        return "" if ".." in said.split("/") else said.strip("/")
    slice_, prefix, name = said.split(":")
    return f"{_slice_path(slice_ or 'system.slice')}/{prefix}-{name}.scope" if name else ""


def _slice_path(slice_: str) -> str:
    """systemd.slice(5): a-b.slice stands below a.slice."""
    parts = slice_.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: number + 1]) + ".slice" for number in range(len(parts)))
