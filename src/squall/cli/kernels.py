"""`squall kernels`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from squall.cli.printing import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from squall.lab.survey import Survey

__all__ = ["command"]

_MARKS = {True: "[green]yes[/]", False: "[red]no[/]", None: "[yellow]?[/]"}
_FAILED = 1
_REMARK_MOST = 400


@click.command("kernels")
@click.argument("kernels", nargs=-1, metavar="[KERNEL]...")
@click.option(
    "--tests", type=click.Path(exists=True, path_type=Path), metavar="FOLDER",
    help="Then run its tests that are marked `kernel` in each, in a second boot.",
)  # fmt: skip
@click.option(
    "--all", "whole", is_flag=True,
    help="Every case of each test, and those marked `slow` too; else one case, another one on each kernel,"
    " and of several kernels each runs every other file.",
)  # fmt: skip
@click.option(
    "--tests-timeout", type=click.FloatRange(10, 7200), default=600.0, show_default=True, metavar="SECONDS",
    help="For the tests of one kernel.",
)  # fmt: skip
@click.option(
    "--logs", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER", help="Keep what the guests print."
)
@json_option
def command(
    kernels: tuple[str, ...], tests: Path | None, whole: bool, tests_timeout: float, logs: Path | None, as_json: bool
) -> None:
    """What Squall can do on other kernels: boots each, tries everything in it, and prints the table.

    KERNEL is a name in the cache that `tools/debian-kernels` fills (5.10, 6.1, 6.12, newest), or the path of a folder
    into which a kernel's packages were unpacked; without one, all in the cache. A guest is software emulation with this
    machine's files as its own, read-only; two run at a time. Needs root.

    Exit status: 0, or 1 when a kernel could not be asked or a test failed; 4 when there is nothing to boot.
    """
    from squall.errors import CannotInject
    from squall.lab import Kernel
    from squall.lab.marked import MarkedTests
    from squall.lab.survey import surveys

    wanted = [Kernel.find(kernel) for kernel in kernels] or Kernel.cached()
    if not wanted:
        raise CannotInject("no kernel is in the cache; to have some: tools/debian-kernels")
    marked = MarkedTests(tests, tests_timeout, whole) if tests else None
    if marked:
        marked.files()  # a wrong folder is said before anything is booted
    found = surveys(wanted, marked, logs=logs, tell=lambda line: click.echo(line, err=True))
    if as_json:
        from dataclasses import asdict

        print_json({"kernels": [{**asdict(each), "good": each.good} for each in found]})
    else:
        _print(found)
    if not all(each.good for each in found):
        sys.exit(_FAILED)


def _print(found: list[Survey]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    for part in (_overview(found), _faults(found), _objects(found), _needs(found)):
        if part.row_count:
            console.print(part)
    for line in _remarks(found):
        console.print(line, markup=False)


def _table(title: str, found: list[Survey]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, style="bold", min_width=len(title))
    for each in found:
        table.add_column(each.release.partition("+")[0].removesuffix("-cloud-amd64"), overflow="fold")
    return table


def _overview(found: list[Survey]) -> Table:
    table = _table("Kernel", found)
    table.add_row("up after", *(f"{each.seconds_up:.1f} s" if each.seconds_up else "[red]never[/]" for each in found))
    table.add_row("BTF", *(_MARKS[each.btf] for each in found))
    table.add_row("security modules", *(each.security.replace(",", " ") or "?" for each in found))
    if any(each.tests for each in found):
        table.add_row("tests", *(_tests(each) for each in found))
    return table


def _tests(survey: Survey) -> str:
    if survey.tests is None:
        return "[red]not run[/]"
    return f"[{'green' if survey.tests.good else 'red'}]{survey.tests}[/]"


def _faults(found: list[Survey]) -> Table:
    """Fault x kernel: the mechanism."""
    table = _table("Fault: its mechanism", found)
    by_kernel = [{fault.name: fault for fault in each.faults} for each in found]
    for name in _ordered(by_kernel):
        cells = [kernel.get(name) for kernel in by_kernel]
        table.add_row(name, *("?" if cell is None else cell.mechanism or "[red]none[/]" for cell in cells))
    return table


def _objects(found: list[Survey]) -> Table:
    """Object x kernel: whether it loads; program by program where one kernel refuses it."""
    table = _table("Object: loaded and verified", found)
    by_kernel = [{one.name: one for one in each.objects} for each in found]
    for name in _ordered(by_kernel):
        cells = [kernel.get(name) for kernel in by_kernel]
        count = max(len(cell.programs) for cell in cells if cell)
        table.add_row(f"{name} ({count} programs)", *("?" if cell is None else _MARKS[cell.works] for cell in cells))
        programs = [{one.name: one.works for one in cell.programs} if cell else {} for cell in cells]
        for program in _ordered(programs):
            answers = [kernel.get(program) for kernel in programs]
            if not all(answers):
                table.add_row(f"  {program}", *(_MARKS[answer] for answer in answers))
    return table


def _needs(found: list[Survey]) -> Table:
    """Relocation or helper x kernel: whether the kernel has it; those that all have are only counted."""
    table = _table("Field, type, constant, helper: there", found)
    everything = [needed for each in found for one in each.objects for needed in (*one.relocations, *one.helpers)]
    names: dict[int | None, str] = {each.number: each.name for each in everything if each.number and each.there}
    needs: list[dict[str, bool | None]] = []
    asked: set[str] = set()
    for each in found:
        needs.append({})
        for one in each.objects:
            for needed in (*one.relocations, *one.helpers):
                needs[-1][names.get(needed.number, needed.name)] = needed.there
                asked |= {needed.name} if needed.asked else set()
    for name in _ordered(needs):
        there = [kernel.get(name) for kernel in needs]
        if not all(there):
            table.add_row(f"{name}{' (asked for)' if name in asked else ''}", *(_MARKS[answer] for answer in there))
    table.add_row(
        "all of them", *(f"{sum(there is True for there in kernel.values())} of {len(kernel)}" for kernel in needs)
    )
    return table


def _remarks(found: list[Survey]) -> list[str]:
    """The reasons, each once, with the kernels that gave it."""
    said: dict[str, list[str]] = {}
    for each in found:
        lines = [each.problem] if each.problem else []
        lines += [
            f"{fault.name}: not by {other.name}: {other.reason}"
            for fault in each.faults
            for other in fault.others
            if other.works is False
        ]
        lines += [
            f"{one.name}/{program.name}: {program.reason}"
            for one in each.objects
            for program in one.programs
            if not program.works
        ]
        lines += [f"FAILED {failure}" for failure in each.tests.failed] if each.tests else []
        lines += [f"skipped {skip}" for skip in each.tests.skipped] if each.tests else []
        for line in lines:
            said.setdefault(_short(line), []).append(each.kernel)
    return [f"{', '.join(kernels)}: {line}" for line, kernels in said.items()]


def _short(line: str) -> str:
    """In one line, its end left out where a verifier said much; --json has it all."""
    line = " ".join(line.split())
    return line if len(line) <= _REMARK_MOST else f"{line[:_REMARK_MOST]} ..."


def _ordered(by_kernel: Sequence[Mapping[str, object]]) -> list[str]:
    """Every name that any kernel has, in the order they came."""
    return list(dict.fromkeys(name for kernel in by_kernel for name in kernel))
