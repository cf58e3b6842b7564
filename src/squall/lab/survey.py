"""What Squall can do on a kernel, and what its tests say there: asked of guests, answered in plain values."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from squall.lab.guest import boot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from squall.lab.kernels import Kernel
    from squall.lab.marked import MarkedTests, Tests

__all__ = ["Answer", "BpfObject", "Fault", "Needed", "Survey", "survey", "surveys"]

AT_A_TIME = 2
"""Guests at a time: each keeps one core busy."""
PROBE_SECONDS_MAX = 300.0


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
    number: int | None = None
    """Of a helper: a kernel without it has no name for it, and another one may."""


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


def surveys(
    kernels: Sequence[Kernel], tests: MarkedTests | None = None, *, logs: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Survey]:  # fmt: skip
    """Ask several kernels, two at a time; `tell` hears of each step, `logs` keeps what the guests print.

    An interruption ends the guests at once.
    """
    stop = Event()
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="kernel") as pool:
        shares = [tests.shared(number, len(kernels)) if tests else None for number in range(len(kernels))]
        futures = [
            pool.submit(survey, kernel, share, stop=stop, logs=logs, tell=tell)
            for kernel, share in zip(kernels, shares, strict=True)
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def survey(
    kernel: Kernel, tests: MarkedTests | None = None, *, stop: Event | None = None, logs: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Survey:  # fmt: skip
    """Ask one kernel what it can do, and then run the tests in a second, fresh boot."""
    where = str(Path.cwd())
    guest = boot(kernel, [sys.executable, "-m", "squall.lab.inside"], PROBE_SECONDS_MAX, folder=where, stop=stop,
                 log=logs / f"{kernel.release}-probe.log" if logs else None)  # fmt: skip
    problem = guest.problem()
    said: dict[str, Any] = {} if problem else json.loads(guest.result)
    doctor = said.get("doctor", {})
    tell(f"{kernel.release}: {problem or f'asked in {guest.seconds:.0f} s'}")
    tested = tests.run(kernel, stop=stop, logs=logs) if tests and not problem else None
    if tested:
        tell(f"{kernel.release}: {tested}")
    return Survey(
        kernel=kernel.name, release=kernel.release, btf=said.get("btf"), security=said.get("security", ""),
        faults=tuple(_fault(row) for row in doctor.get("faults", ())),
        objects=tuple(_object(row) for row in said.get("objects", ())),
        tests=tested, seconds_up=guest.seconds_up, seconds=guest.seconds, problem=problem or doctor.get("problem", ""),
    )  # fmt: skip


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(row.get("name") or row["mechanism"], row["works"], row["reason"])


def _fault(row: dict[str, Any]) -> Fault:
    return Fault(row["fault"], row["mechanism"], tuple(_answer(other) for other in row["others"]))


def _helper(row: dict[str, Any]) -> Needed:
    return Needed(row["name"] or f"helper {row['number']}", row["there"], asked=False, number=row["number"])


def _object(row: dict[str, Any]) -> BpfObject:
    return BpfObject(
        row["name"], row["works"], row["reason"], tuple(_answer(each) for each in row["programs"]),
        tuple(Needed(each["name"], each["there"], each["asked"]) for each in row["relocations"]),
        tuple(_helper(each) for each in row["helpers"]),
    )  # fmt: skip
