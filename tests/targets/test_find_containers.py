"""A container is found in its cgroup, whoever runs it, and called by the names that its runtime has written down.

The cgroups are real; the state files have the formats of Docker, containers/storage (Podman, CRI-O) and containerd,
whose sources are named in `squall.kernel.containers`.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import InputError, TargetError
from squall.kernel.containers import StateFolders
from squall.targets import CgroupTarget, find_containers
from squall.targets.container import state_folders
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Iterator


def new_id() -> str:
    return os.urandom(32).hex()


@dataclass
class Machine:
    """Cgroups below one of a test's own, and the runtimes' state below a folder of its own."""

    group: Path
    state: Path
    exits: ExitStack

    @property
    def folders(self) -> StateFolders:
        return StateFolders(
            (str(self.state / "docker"),), (str(self.state / "storage"),), (str(self.state / "containerd"),)
        )

    def cgroup(self, path: str) -> Path:
        folder = self.group
        for part in path.split("/"):
            folder /= part
            if not folder.exists():
                folder.mkdir()
                self.exits.callback(folder.rmdir)
        return folder

    def write(self, path: str, content: Any) -> None:
        file = self.state / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    def docker(self, id_: str, name: str, labels: dict[str, str] | None = None) -> None:
        state = {"Running": True, "Paused": False, "Pid": 4711}
        self.write(
            f"docker/containers/{id_}/config.v2.json",
            {"State": state, "ID": id_, "Config": {"Labels": labels or {}}, "Name": f"/{name}", "Driver": "overlay2"},
        )

    def task(self, namespace: str, id_: str, annotations: dict[str, str], cgroup: str = "") -> None:
        self.write(
            f"containerd/io.containerd.runtime.v2.task/{namespace}/{id_}/config.json",
            {"ociVersion": "1.1.0", "annotations": annotations, "linux": {"cgroupsPath": cgroup}},
        )

    def find(self, name: str) -> list[CgroupTarget]:
        return find_containers(name, self.folders)


@pytest.fixture(params=["", "memory"], ids=["v2", "v1"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with specimens.own_cgroup(request.param) as group, ExitStack() as exits:
        yield Machine(group, tmp_path, exits)


LAYOUTS = {
    "docker, systemd": "system.slice/docker-{}.scope",
    "docker, cgroupfs": "docker/{}",
    "kubelet and containerd, systemd": (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_e4f5_0617_2839_4a5b6c7d8e9f.slice/cri-containerd-{}.scope"
    ),
    "kubelet, cgroupfs": "kubepods/besteffort/pod0a1b2c3d-e4f5-0617-2839-4a5b6c7d8e9f/{}",
    "nerdctl, systemd": "system.slice/nerdctl-{}.scope",
    "podman, systemd": "machine.slice/libpod-{}.scope",
    "podman, cgroupfs": "libpod_parent/libpod-{}",
    "podman, split": "user.slice/app.service/libpod-payload-{}",
    "cri-o, systemd": "kubepods.slice/kubepods-pod0a1b.slice/crio-{}.scope",
    "cri-o, cgroupfs": "kubepods/pod0a1b/crio-{}",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_it_is_found_by_id_wherever_a_runtime_puts_it(machine: Machine, layout: str) -> None:
    id_ = new_id()
    folder = machine.cgroup(layout.format(id_))
    for name in (id_, id_[:12], id_[:4]):
        (target,) = machine.find(name)
        assert target.folders == (str(folder),)
        assert target.label == f"container {id_[:12]}"
        assert target.kind == "cgroup"
        assert target.alive()


def test_its_processes_are_those_in_it_and_below(machine: Machine) -> None:
    """Podman with systemd puts them one level below the scope, and its monitor beside it."""
    id_ = new_id()
    inner = machine.cgroup(f"machine.slice/libpod-{id_}.scope/container")
    machine.cgroup(f"machine.slice/libpod-conmon-{id_}.scope")
    with specimens.sleeper() as specimen:
        before = Path("/proc/self/cgroup").read_text()
        (inner / "cgroup.procs").write_text(str(specimen.pid))
        (target,) = machine.find(id_)
        assert target.folders == (str(inner.parent),)
        assert target.processes() == [specimen.pid]
        assert Path("/proc/self/cgroup").read_text() == before
        specimen.popen.kill()
        specimen.popen.wait()


def test_docker_names(machine: Machine) -> None:
    shop, other = new_id(), new_id()
    for id_, name in ((shop, "shop"), (other, "shop-db")):
        machine.cgroup(f"docker/{id_}")
        machine.docker(id_, name)
    (target,) = machine.find("shop")
    assert target.label == f"container shop ({shop[:12]})"
    assert target.path.endswith(f"/docker/{shop}")
    with pytest.raises(TargetError, match=re.escape("there is no container 'shop-d'; there is ")):
        machine.find("shop-d")


def test_podman_names(machine: Machine) -> None:
    id_, other = new_id(), new_id()
    machine.cgroup(f"machine.slice/libpod-{id_}.scope")
    machine.write(
        "storage/overlay-containers/containers.json",
        [{"id": other, "names": ["web"]}, {"id": id_, "names": ["shop"], "layer": "x", "metadata": "{}"}],
    )
    assert machine.find("shop")[0].label == f"container shop ({id_[:12]})"
    with pytest.raises(
        TargetError, match=re.escape(f"the container web ({other[:12]}) does not run: it has no cgroup")
    ):
        machine.find("web")


def test_names_of_a_pods_containers_by_cri_o(machine: Machine) -> None:
    app, sandbox = new_id(), new_id()
    about = {
        "pod-name": "shop-6b7f",
        "pod-id": sandbox,
        "namespace": "production",
        "name": "k8s_app_shop-6b7f_production_u_0",
    }
    for id_ in (app, sandbox):
        machine.cgroup(f"kubepods.slice/crio-{id_}.scope")
    machine.write(
        "storage/overlay-containers/containers.json",
        [
            {"id": sandbox, "names": ["k8s_POD_shop"], "metadata": json.dumps({**about, "pod": True, "metadata-name": "shop"})},
            {"id": app, "names": [about["name"]], "metadata": json.dumps({**about, "metadata-name": "app"})},
        ],
    )  # fmt: skip
    for name in ("app", "shop-6b7f/app", "production/shop-6b7f/app", about["name"]):
        (target,) = machine.find(name)
        assert target.label == f"container shop-6b7f/app ({app[:12]})"


def cri(name: str, pod: str, kind: str = "container") -> dict[str, str]:
    """What containerd's CRI plugin writes of a container."""
    given = {"container-type": kind, "sandbox-name": pod, "sandbox-namespace": "production", "sandbox-id": "f" * 64}
    if kind == "container":
        given["container-name"] = name
    return {f"io.kubernetes.cri.{key}": value for key, value in given.items()}


def test_names_of_a_pods_containers_by_containerd(machine: Machine) -> None:
    first, second, sandbox = new_id(), new_id(), new_id()
    for id_, pod, kind in (
        (first, "shop-1", "container"),
        (second, "shop-2", "container"),
        (sandbox, "shop-1", "sandbox"),
    ):
        machine.cgroup(f"kubepods.slice/cri-containerd-{id_}.scope")
        machine.task("k8s.io", id_, cri("app", pod, kind))
    assert {target.label for target in machine.find("app")} == {
        f"container shop-1/app ({first[:12]})",
        f"container shop-2/app ({second[:12]})",
    }
    assert [target.label for target in machine.find("shop-2/app")] == [f"container shop-2/app ({second[:12]})"]


def test_names_of_pods_containers_by_docker(machine: Machine) -> None:
    app, sandbox = new_id(), new_id()
    for id_, name in ((app, "app"), (sandbox, "POD")):
        machine.cgroup(f"kubepods/pod0a/{id_}")
        known = {"container.name": name, "pod.name": "shop-1", "pod.namespace": "p"}
        labels = {f"io.kubernetes.{key}": value for key, value in known.items()}
        machine.docker(id_, f"k8s_{name}_shop-1_p_u_0", labels)
    assert [target.path for target in machine.find("p/shop-1/app")] == [target.path for target in machine.find(app)]
    with pytest.raises(TargetError, match="there is no container 'POD'"):
        machine.find("POD")


def test_nerdctl_names_and_ids_that_are_words(machine: Machine) -> None:
    """`ctr run IMAGE shop` has the id "shop"; where its cgroup is stands in the bundle."""
    id_ = new_id()
    machine.cgroup(f"default/{id_}")
    machine.task("default", id_, {"nerdctl/name": "web"})
    assert machine.find("web")[0].label == f"container web ({id_[:12]})"
    folder = machine.cgroup("default/shop")
    machine.task("default", "shop", {}, f"/{machine.group.name}/default/shop")
    (target,) = machine.find("shop")
    assert target.folders == (str(folder),)
    assert target.label == "container shop"


def test_a_scope_that_systemds_driver_makes(machine: Machine) -> None:
    machine.cgroup("a.slice")  # the bundle's own spelling has no way to say a folder of a test's own
    machine.task("default", "shop", {}, "a-b.slice:ctr:shop")
    with pytest.raises(TargetError, match="the container shop does not run: it has no cgroup"):
        machine.find("shop")


def test_an_ambiguous_beginning_of_an_id_is_refused_with_the_list(machine: Machine) -> None:
    begins = new_id()[:8]
    ids = sorted(begins + new_id()[8:] for _ in range(2))
    for number, id_ in enumerate(ids):
        machine.cgroup(f"docker/{id_}")
        machine.docker(id_, f"shop-{number}")
    with pytest.raises(
        TargetError, match=re.escape(f"2 containers have an id that begins with {begins}: shop-0 ({begins}")
    ):
        machine.find(begins)
    assert machine.find(ids[0])[0].path.endswith(ids[0])
    machine.docker(ids[0], begins)
    assert machine.find(begins)[0].path.endswith(ids[0])  # a name goes before the beginning of an id


def test_a_restarted_one_is_another_target(machine: Machine) -> None:
    id_ = new_id()
    folder = machine.cgroup(f"docker/{id_}")
    machine.docker(id_, "shop")
    (before,) = machine.find("shop")
    folder.rmdir()
    assert not before.alive()
    folder.mkdir()
    (after,) = machine.find("shop")
    assert after.key != before.key
    assert not before.alive()
    assert after.alive()


@pytest.mark.parametrize("content", ["", "{", "[1, null]", '{"ID": 3}', '{"Name": {}}', "[" * 100_000, "\0"])
def test_state_that_cannot_be_read_hides_no_other(machine: Machine, content: str) -> None:
    id_ = new_id()
    machine.cgroup(f"docker/{id_}")
    machine.docker(id_, "shop")
    broken = (
        "docker/containers/0/config.v2.json",
        "storage/vfs-containers/containers.json",
        "containerd/io.containerd.runtime.v2.task/a/b/config.json",
    )
    for path in broken:
        machine.write(path, content)
    assert machine.find("shop")[0].path.endswith(id_)


def test_where_the_state_is_can_be_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    monkeypatch.setenv("SQUALL_CONFIG", str(config))
    config.write_text('[containers]\ndocker = ["/data/docker"]\n')
    assert state_folders() == StateFolders(docker=("/data/docker",))
    for text in ('containers = "x"', '[containers]\ndokcer = ["x"]', '[containers]\ndocker = "x"'):
        config.write_text(text)
        with pytest.raises(InputError, match=re.escape(str(config))):
            state_folders()
