"""What a guest starts with: a small archive in memory with busybox, the modules that must be there, and its first program.

The archive is a cpio of the "newc" form (Documentation/driver-api/early-userspace/buffer-format), not compressed: under
emulation unpacking costs more than reading.
"""

from __future__ import annotations

import lzma
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from squall.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.lab.kernels import Kernel

__all__ = ["MODULES", "NEEDED", "Archive", "build", "in_order"]

NEEDED = ("virtio_pci", "virtio_console", "virtiofs", "overlay")
"""Without these (or the same built in) a guest reaches neither its files nor its host."""

MODULES = (
    "dummy",
    "veth",
    "ifb",
    "tun",
    "sch_netem",
    "sch_fq",
    "sch_fq_codel",
    "sch_ingress",
    "sch_prio",
    "sch_tbf",
    "sch_htb",
    "cls_bpf",
    "cls_u32",
    "cls_fw",
    "cls_matchall",
    "cls_flower",
    "cls_cgroup",
    "act_bpf",
    "act_mirred",
    "act_gact",
    "nf_conntrack",
    "nf_tables",
    "nft_ct",
    "nft_numgen",
    "nft_reject_inet",
    "nft_limit",
    "nft_socket",
    "nft_nat",
    "tcp_diag",
    "udp_diag",
    "inet_diag",
)
"""What is loaded before the command runs, as far as the kernel has it: what Squall's mechanisms and tests work with."""

FIRST = r"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module" || echo "squall: $module was not loaded"; done </modules.order
$b mkdir -p /low /upper /new
$b mount -t virtiofs -o ro host /low || echo "squall: the host's files are not there"
$b mount -t tmpfs tmpfs /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/low,upperdir=/upper/files,workdir=/upper/work overlay /new
for folder in proc sys dev run tmp lib/modules; do $b mkdir -p "/new/$folder"; done
$b mount -t proc proc /new/proc
$b mount -t sysfs sysfs /new/sys
$b mount -t devtmpfs dev /new/dev
$b mkdir -p /new/dev/shm /new/dev/pts
$b mount -t tmpfs tmpfs /new/dev/shm
$b mount -t devpts devpts /new/dev/pts
$b ln -sf /proc/self/fd /new/dev/fd
$b mount -t tmpfs tmpfs /new/run
$b mkdir /new/run/squall-lab
$b cp /bin/busybox /command /second /new/run/squall-lab/
exec $b switch_root -c /dev/console /new /run/squall-lab/second
"""

SECOND = r"""#!/run/squall-lab/busybox sh
b=/run/squall-lab/busybox
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t debugfs debugfs /sys/kernel/debug
$b mount -t tracefs tracefs /sys/kernel/tracing
$b mount -t securityfs securityfs /sys/kernel/security
$b mount -o bind "@MODULES@" /lib/modules
$b ip link set lo up
$b hostname squall-lab
ulimit -l unlimited
for port in /sys/class/virtio-ports/*; do
    case $($b cat "$port/name") in
    output) output=/dev/${port##*/} ;;
    status) status=/dev/${port##*/} ;;
    result) result=/dev/${port##*/} ;;
    esac
done
exec 3>"$status"
echo up >&3
$b sh /run/squall-lab/command >"$output" 2>&1 3>&-
code=$?
[ -e /run/squall-lab/result ] && $b cat /run/squall-lab/result >"$result"
echo "ended $code $($b cut -d' ' -f1 /proc/uptime)" >&3
$b poweroff -f
"""
"""The second program: in the guest's final root, as pid 1."""


@dataclass(slots=True)
class Archive:
    """A cpio archive that grows in memory."""

    data: bytearray = field(default_factory=bytearray)
    files: int = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        """Append one file, folder, link or device; `mode` has its type, as st_mode."""
        self.files += 1
        named = name.encode() + b"\0"
        numbers = (self.files, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(named), 0)
        self.data += b"070701" + b"".join(b"%08X" % number for number in numbers)
        for part in (named, content):
            self.data += part
            self.data += bytes(-len(self.data) % 4)

    def finish(self) -> bytes:
        """The whole archive."""
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def build(
    kernel: Kernel,
    busybox: str,
    command: Sequence[str],
    folder: str,
    environment: dict[str, str],
    modules: Sequence[str],
) -> bytes:
    """The archive that makes a guest load modules, take the host's files as its root and run a command in a folder.

    Raises:
        InputError: a module that is needed cannot be had.
    """
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "modules"):
        archive.add(name, 0o40755)
    archive.add("dev/console", 0o20600, device=(5, 1))
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    archive.add("init", 0o100755, FIRST.encode())
    archive.add("second", 0o100755, SECOND.replace("@MODULES@", str(kernel.modules.parent)).encode())
    archive.add("command", 0o100755, _script(command, folder, environment).encode())
    order: list[str] = []
    for path in in_order(kernel, modules):
        order.append(path.name.partition(".ko")[0] + ".ko")
        archive.add(f"modules/{order[-1]}", 0o100644, _module(path))
    archive.add("modules.order", 0o100644, "".join(f"{name}\n" for name in order).encode())
    return archive.finish()


def in_order(kernel: Kernel, names: Sequence[str]) -> list[Path]:
    """The files of some modules and all that they need, in the order to load them; what is built in has none.

    Raises:
        InputError: one of NEEDED is asked for, and is neither a module of this kernel nor built in.
    """
    needs: dict[str, list[str]] = {}
    files: dict[str, str] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[file] = others.split()
        files[_name(file)] = file
    builtin = {_name(line) for line in (kernel.modules / "modules.builtin").read_text().splitlines()}
    found: list[str] = []
    for name in names:
        if name in NEEDED and name not in files and name not in builtin:
            raise InputError(f"kernel {kernel.release} has no module {name}, which a guest needs to reach its host")
        wanted = files.get(name)
        for each in [*reversed(needs[wanted]), wanted] if wanted else []:  # modules.dep lists the nearest need first
            if each not in found:
                found.append(each)
    return [kernel.modules / file for file in found]


def _name(file: str) -> str:
    return Path(file).name.partition(".ko")[0].replace("-", "_")


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        if not (program := shutil.which("zstd")):
            raise InputError(f"{path.name} is compressed by zstd, which this machine lacks: apt-get install zstd")
        return subprocess.run([program, "-dc"], input=data, capture_output=True, check=True).stdout
    return data


def _script(command: Sequence[str], folder: str, environment: dict[str, str]) -> str:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join([*exports, f"cd {shlex.quote(folder)} || exit 126", f"exec {shlex.join(command)}", ""])
