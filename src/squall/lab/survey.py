"""What Squall can do on a kernel, and what its tests say there: asked of guests, answered in plain values."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from squall.errors import InputError
from squall.lab.guest import RESULT, Guest, boot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from squall.lab.kernels import Kernel

__all__ = ["Answer", "BpfObject", "Fault", "Needed", "Survey", "Tests", "marked", "survey", "surveys"]

AT_A_TIME = 2
"""Guests at a time: each keeps one core busy."""
PROBE_SECONDS_MAX = 300.0
TESTS_MEMORY_MIB = 1024
_MARK = re.compile(rb"\bmark\.kernel\b")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether something works: yes, no, or None (it could not be told), with the reason."""

    name: str
    works: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Needed:
    """A field, type, constant or helper that an object names."""

    name: str
    there: bool | None
    asked: bool
    """The object asks whether it is there, and goes on without it."""


@dataclass(frozen=True, slots=True)
class BpfObject:
    """One built object on one kernel."""

    name: str
    works: bool | None
    reason: str
    programs: tuple[Answer, ...]
    relocations: tuple[Needed, ...]
    helpers: tuple[Needed, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on one kernel: the mechanism that is used there, and why not each other one."""

    name: str
    mechanism: str | None
    others: tuple[Answer, ...]


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


@dataclass(frozen=True, slots=True)
class Survey:
    """One kernel."""

    kernel: str
    release: str
    btf: bool | None
    security: str
    """The security modules that are on, as the kernel lists them."""
    faults: tuple[Fault, ...]
    objects: tuple[BpfObject, ...]
    tests: Tests | None
    seconds_up: float | None
    seconds: float
    problem: str = ""

    @property
    def good(self) -> bool:
        """Whether it could be asked, and its tests (if there were any) passed."""
        return not self.problem and (self.tests is None or self.tests.good)


def marked(folder: Path) -> list[Path]:
    """The test files that have tests marked `kernel`: collecting all others would cost a guest minutes.

    Raises:
        InputError: there are none.
    """
    candidates = [folder] if folder.is_file() else sorted(folder.rglob("test_*.py"))
    found = [path for path in candidates if path.is_file() and _MARK.search(path.read_bytes())]
    if not found:
        raise InputError(f"{folder} has no test marked `kernel` (@pytest.mark.kernel in test_*.py)")
    return found


def surveys(
    kernels: Sequence[Kernel], tests: Path | None, timeout: float, *, logs: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Survey]:  # fmt: skip
    """Ask several kernels, two at a time, each within `timeout` seconds for its tests; `tell` hears of each step.

    What the guests print is kept in `logs`. An interruption ends the guests at once.
    """
    stop = Event()
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="kernel") as pool:
        futures = [pool.submit(survey, kernel, tests, timeout, stop=stop, logs=logs, tell=tell) for kernel in kernels]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def survey(
    kernel: Kernel, tests: Path | None, timeout: float, *, stop: Event | None = None, logs: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Survey:  # fmt: skip
    """Ask one kernel what it can do, and then (tests: a folder or file) run the marked tests in a second, fresh boot."""
    where = str(Path.cwd())
    guest = boot(kernel, [sys.executable, "-m", "squall.lab.inside"], PROBE_SECONDS_MAX, folder=where, stop=stop)
    _keep(guest, logs, "probe")
    problem = _problem(guest)
    said: dict[str, Any] = {} if problem else json.loads(guest.result)
    doctor = said.get("doctor", {})
    tell(f"{kernel.release}: {problem or f'asked in {guest.seconds:.0f} s'}")
    tested = _tests(kernel, tests, timeout, stop, logs) if tests and not problem else None
    if tested:
        tell(f"{kernel.release}: {summary(tested)}")
    return Survey(
        kernel=kernel.name, release=kernel.release, btf=said.get("btf"), security=said.get("security", ""),
        faults=tuple(_fault(row) for row in doctor.get("faults", ())),
        objects=tuple(_object(row) for row in said.get("objects", ())),
        tests=tested, seconds_up=guest.seconds_up, seconds=guest.seconds, problem=problem or doctor.get("problem", ""),
    )  # fmt: skip


def summary(tests: Tests) -> str:
    """The tests in a line."""
    counts = f"{tests.passed} passed, {len(tests.failed)} failed, {len(tests.skipped)} skipped in {tests.seconds:.0f} s"
    return f"{tests.problem} ({counts})" if tests.problem else counts


def _tests(kernel: Kernel, folder: Path, timeout: float, stop: Event | None, logs: Path | None) -> Tests:
    files = [str(path) for path in marked(folder)]
    options = ["-m", "kernel", "-p", "no:cacheprovider", "-o", "junit_family=xunit2", f"--junitxml={RESULT}"]
    guest = boot(
        kernel, [sys.executable, "-m", "pytest", *options, *files], timeout, folder=str(Path.cwd()), stop=stop,
        memory_mib=TESTS_MEMORY_MIB,
    )  # fmt: skip
    _keep(guest, logs, "tests")
    if not guest.result:
        return Tests(0, (), (), guest.seconds, _problem(guest) or "pytest wrote no results")
    found = _junit(guest.result)
    problem = "" if guest.status in {0, 1} else _problem(guest)
    return Tests(found[0], tuple(found[1]), tuple(found[2]), guest.seconds, problem)


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


def _problem(guest: Guest) -> str:
    """Why there is no answer; empty when there is one."""
    if guest.status == 0:
        return ""
    if guest.status is not None:
        lines = guest.output.decode(errors="replace").strip().splitlines()
        return f"ended with {guest.status}: {lines[-1] if lines else 'and said nothing'}"
    lines = guest.console.splitlines()
    return f"{guest.ended}{f': {lines[-1]}' if lines else ''}"


def _keep(guest: Guest, logs: Path | None, what: str) -> None:
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"{guest.kernel.release}-{what}.log").write_bytes(guest.output + b"\n" + guest.console.encode())


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(row.get("name") or row["mechanism"], row["works"], row["reason"])


def _fault(row: dict[str, Any]) -> Fault:
    return Fault(row["fault"], row["mechanism"], tuple(_answer(other) for other in row["others"]))


def _object(row: dict[str, Any]) -> BpfObject:
    return BpfObject(
        row["name"], row["works"], row["reason"], tuple(_answer(each) for each in row["programs"]),
        tuple(Needed(each["name"], each["there"], each["asked"]) for each in row["relocations"]),
        tuple(Needed(each["name"] or f"helper {each['number']}", each["there"], asked=False) for each in row["helpers"]),
    )  # fmt: skip
