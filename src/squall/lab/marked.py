"""The tests marked `kernel`, run in a guest by the very pytest of the host."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from squall.errors import InputError
from squall.lab.guest import RESULT, Guest, boot

if TYPE_CHECKING:
    from threading import Event

    from squall.lab.kernels import Kernel

__all__ = ["MarkedTests", "Tests"]

MEMORY_MIB = 1024
_MARK = re.compile(rb"\bmark\.kernel\b")
_LINE = re.compile(r"^(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tests:
    """What the marked tests said."""

    passed: int
    failed: tuple[str, ...]
    """Name and first line of what was wrong."""
    skipped: tuple[str, ...]
    """Name and reason."""
    seconds: float
    problem: str = ""
    """Why there is no whole answer: the guest died, the time was up, pytest could not begin."""

    @property
    def good(self) -> bool:
        """Whether all of them ran, and none failed."""
        return not self.failed and not self.problem

    def __str__(self) -> str:
        counts = f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped in {self.seconds:.0f} s"
        return f"{self.problem} ({counts})" if self.problem else counts


@dataclass(frozen=True, slots=True)
class MarkedTests:
    """Which tests, and how long they may take in each kernel."""

    folder: Path
    """Where they are; or one file."""
    timeout: float
    """In seconds, from the guest's start."""
    whole: bool = False
    """Every case of a parametrised test, and those that are marked `slow`, as well: an hour on each kernel."""
    share: tuple[int, int] = (0, 1)
    """The files of this number, of so many: several kernels share them, where each need not run all."""

    def files(self) -> list[Path]:
        """The files that have marked tests: collecting all others would cost a guest minutes.

        Raises:
            InputError: there are none.
        """
        candidates = [self.folder] if self.folder.is_file() else sorted(self.folder.rglob("test_*.py"))
        found = [path for path in candidates if _MARK.search(path.read_bytes())]
        if not found:
            raise InputError(f"{self.folder} has no test marked `kernel` (@pytest.mark.kernel in test_*.py)")
        number, of = self.share
        return found[number::of] if len(found) >= of else found

    def shared(self, number: int, kernels: int) -> MarkedTests:
        """What the kernel of this number runs of them: with several kernels, and unless it is the whole, every other file."""
        return self if self.whole or kernels == 1 else replace(self, share=(number % 2, 2))

    def run(self, kernel: Kernel, *, stop: Event | None = None, logs: Path | None = None) -> Tests:
        """Boot a kernel and run them; what the guest prints is kept in `logs`."""
        which = ["-m", "kernel"] if self.whole else ["-m", "kernel and not slow", "-p", "squall.lab.one_case"]
        options = ["-v", *which, "-p", "no:cacheprovider", "-o", "junit_family=xunit2", f"--junitxml={RESULT}"]
        guest = boot(
            kernel, [sys.executable, "-m", "pytest", *options, *map(str, self.files())], self.timeout,
            folder=str(Path.cwd()), stop=stop, memory_mib=MEMORY_MIB,
            log=logs / f"{kernel.release}-tests.log" if logs else None,
        )  # fmt: skip
        if not guest.result:
            return _unfinished(guest)
        passed, failed, skipped = _junit(guest.result)
        problem = "" if guest.status in {0, 1} else guest.problem()
        return Tests(passed, tuple(failed), tuple(skipped), guest.seconds, problem)


def _unfinished(guest: Guest) -> Tests:
    """As far as it came, by the lines that pytest prints."""
    done: dict[str, list[str]] = {"PASSED": [], "FAILED": [], "ERROR": [], "SKIPPED": []}
    for name, outcome in _LINE.findall(guest.output.decode(errors="replace")):
        done[outcome].append(name.rpartition("/")[2])
    problem = guest.problem() or "pytest wrote no results"
    return Tests(
        len(done["PASSED"]), tuple(done["FAILED"] + done["ERROR"]), tuple(done["SKIPPED"]), guest.seconds, problem
    )


def _junit(text: bytes) -> tuple[int, list[str], list[str]]:
    """How many passed; which failed; which were skipped."""
    passed, failed, skipped = 0, [], []
    for case in ET.fromstring(text).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = next((child for child in case if child.tag in {"failure", "error"}), None)
        left_out = case.find("skipped")
        if bad is not None:
            failed.append(f"{name}: {(bad.get('message') or '').splitlines()[0][:200] if bad.get('message') else ''}")
        elif left_out is not None:
            skipped.append(f"{name}: {left_out.get('message')}")
        else:
            passed += 1
    return passed, failed, skipped
