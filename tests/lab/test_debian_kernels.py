"""tools/debian-kernels finds Debian's newest kernel of a release, and says what it could not have and why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NAME = "linux-image-9.8.7-cloud-amd64"

APT_GET = f"""#!/bin/sh
for word; do case $word in
    indextargets) echo "$MIRROR/debian/ stable"; echo "$MIRROR/debian-security/ stable-security"; echo "$MIRROR/extra ./" ;;
    update)
        cat "$(printf '%s\\n' "$@" | sed -n 's/^Dir::Etc::sourcelist=//p')" >>"$SEEN"
        [ -z "$BROKEN" ] || {{ echo "E: $BROKEN" >&2; exit 100; }}
        ;;
    download) touch {NAME}_1_amd64.deb ;;
esac; done
"""
APT_CACHE = f"""#!/bin/sh
echo linux-image-cloud-amd64; echo '  Depends: {NAME}'; echo {NAME}; echo '  Depends: kmod'; echo kmod; echo linux-image-amd64
"""
DPKG = """#!/bin/sh
mkdir -p "$3/lib/modules/9.8.7-cloud-amd64" "$3/boot"; touch "$3/boot/vmlinuz-9.8.7-cloud-amd64"
"""
DEPMOD = """#!/bin/sh
touch "$2/lib/modules/$3/modules.dep"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing but the tool, and a machine whose package tools do what they are told."""
    (tmp_path / "tools").mkdir()
    for name in ("debian-cache", "debian-kernels"):
        shutil.copy(TOOLS / name, tmp_path / "tools")
    (tmp_path / "bin").mkdir()
    for name, text in {"apt-get": APT_GET, "apt-cache": APT_CACHE, "dpkg": DPKG, "depmod": DEPMOD}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def kernels(checkout: Path, *names: str, path: str | None = None, broken: str = "") -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "PATH": path if path is not None else f"{checkout}/bin:{os.environ['PATH']}", "BROKEN": broken,
        "MIRROR": "http://mirror.invalid", "SEEN": str(checkout / "sources"),
    }  # fmt: skip
    command = [sys.executable, str(checkout / "tools" / "debian-kernels"), *names]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_suites_are_on_the_mirror_that_the_machine_has(checkout: Path) -> None:
    done = kernels(checkout, "6.1", "newest")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(checkout / ".cache/debian/kernels" / name / "root") for name in ("6.1", "newest")
    ]
    sources = [line.split()[-3:] for line in (checkout / "sources").read_text().splitlines()]
    assert sources == [
        ["http://mirror.invalid/debian", "bookworm", "main"],
        ["http://mirror.invalid/debian-security", "bookworm-security", "main"],
        ["http://mirror.invalid/debian", "trixie-backports", "main"],
    ]
    assert f"unpacking {NAME}\n" in done.stderr


def test_what_is_there_stays(checkout: Path) -> None:
    assert kernels(checkout, "5.10").returncode == 0
    again = kernels(checkout, "5.10", broken="the mirror is gone")
    assert (again.returncode, again.stderr) == (0, "")
    assert {path.name for path in (checkout / ".cache/debian/kernels").iterdir()} == {"5.10"}


def test_what_cannot_be_had_is_said_with_its_reason_and_not_asked_again_at_once(checkout: Path) -> None:
    for _ in range(2):
        done = kernels(checkout, "5.10", broken="the repository is no longer there")
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            "kernel 5.10 could not be had: E: the repository is no longer there; to try again at once: rm "
            in done.stderr
        )
    assert len((checkout / "sources").read_text().splitlines()) == 1
    (checkout / ".cache/debian/kernels/5.10.failed").unlink()
    assert kernels(checkout, "5.10").returncode == 0


def test_a_machine_without_apt_is_told_so(checkout: Path) -> None:
    done = kernels(checkout, "6.12", path=str(checkout))
    assert (done.returncode, done.stdout) == (1, "")
    assert "this machine has no apt-get and dpkg" in done.stderr


def test_an_unknown_name_is_refused(checkout: Path) -> None:
    done = kernels(checkout, "4.19")
    assert done.returncode == 2
    assert "5.10, 6.1, 6.12, newest" in done.stderr
