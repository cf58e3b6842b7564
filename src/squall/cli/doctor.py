"""`squall doctor`."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import click

from squall.cli.printing import json_option, print_json, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.injectors import Capability, Chooser, Injector

__all__ = ["command"]

_COLUMN_MOST = 24
"""What begins with more than this goes on in the next line."""


@click.command("doctor")
@click.argument("faults", nargs=-1, metavar="[TYPE]...")
@json_option
def command(faults: tuple[str, ...], as_json: bool) -> None:
    """What this machine can do: for each fault (or these) the mechanism that would be used, how well, and why not another.

    Every mechanism is really tried, as far as that harms nothing; what the target itself may still rule out is said by
    `--dry-run`.
    """
    from squall.faults import fault_model, fault_types
    from squall.injectors import INJECTORS, Chooser, Host
    from squall.recovery.state import State
    from squall.targets import Protected

    host = Host.look()
    chooser = Chooser(INJECTORS, host)
    rows = [_row(tag, chooser) for tag in ([fault_model(tag).type for tag in faults] or fault_types())]
    state, open_runs = State.default(), len(State.default().open_runs())
    facts = {
        "kernel": host.kernel, "root": host.root, "state": str(state.path), "open_runs": open_runs, "halted": state.halted,
        "protected": sorted(Protected.load().commands),
    }  # fmt: skip
    if as_json:
        print_json({"host": facts, "faults": rows})
        return
    who = "root" if host.root else "an ordinary user: only your own processes can be hit"
    click.echo(
        f"Linux {host.kernel}, as {who}. State in {state.path}, {open_runs} runs open.{' HALTED.' if state.halted else ''}\n"
    )
    click.echo(_faults(rows))
    click.echo("\n" + _used(rows))
    if any(row["others"] for row in rows):
        click.echo("\n" + _not_used(rows))
    click.echo(
        "\nlease: ends by itself. guarded: undone by the guardian, else by the next squall command. irreversible: announced before."
    )


def _row(tag: str, chooser: Chooser) -> dict[str, Any]:
    """One fault: the mechanism that comes first here, and of each other one why it does not."""
    survey = chooser.survey(tag)
    best = next((injector for injector, capability in survey if capability.works is not False), None)
    return {
        "fault": tag,
        "mechanism": best.mechanism if best else None,
        "summary": best.summary if best else "",
        "recoverability": best.recoverability if best else None,
        "others": [
            {"mechanism": injector.mechanism, "works": capability.works, "reason": _why_not(injector, capability, best)}
            for injector, capability in survey if injector is not best
        ],
    }  # fmt: skip


def _why_not(injector: Injector, capability: Capability, best: Injector | None) -> str:
    if capability.works is False or best is None:
        return capability.reason
    doubt = f"whether it works could not be told ({capability.reason}); " if capability.works is None else ""
    if injector.recoverability != best.recoverability:
        return f"{doubt}{injector.recoverability} where {best.mechanism} is {best.recoverability}; used where that one cannot"
    return f"{doubt}used where {best.mechanism} cannot"


def _faults(rows: Iterable[dict[str, Any]]) -> str:
    """A line for each fault: by what, how it ends."""
    shown = [
        (row["fault"], row["mechanism"] or click.style("none", fg="red"), row["recoverability"] or "-") for row in rows
    ]
    return table(shown, ("fault", "by", "recovery"))


def _used(rows: Iterable[dict[str, Any]]) -> str:
    """Each mechanism that is used, once: how it does it, and how well."""
    summaries = {row["mechanism"]: row["summary"] for row in rows if row["mechanism"]}
    width = max(map(len, summaries), default=0) + 2
    lines = [_hanging(name.ljust(width), summary) for name, summary in sorted(summaries.items())]
    return "\n".join([click.style("HOW, AND HOW WELL", bold=True), *lines])


def _not_used(rows: Iterable[dict[str, Any]]) -> str:
    """The other mechanisms, those with the same reason together."""
    same: dict[tuple[str, bool | None, str], list[str]] = {}
    for row in rows:
        for other in row["others"]:
            same.setdefault((other["mechanism"], other["works"], other["reason"]), []).append(row["fault"])
    lines = []
    for (mechanism, works, reason), tags in sorted(
        same.items(), key=lambda item: (item[0][1] is not False, item[0][0])
    ):
        what = click.style("no", fg="red") if works is False else "second"
        lines.append(_hanging(f"{mechanism} ({what}) for {_listed(tags)}: ", reason))
    return "\n".join([click.style("NOT USED HERE, AND WHY", bold=True), *lines])


def _listed(tags: list[str]) -> str:
    """Faults in few words: those of one family share its name."""
    families: dict[str, list[str]] = {}
    for tag in tags:
        family, _, name = tag.partition(".")
        families.setdefault(family, []).append(name)
    return ", ".join(
        f"{family}.{names[0]}" if len(names) == 1 else f"{family}.{{{','.join(names)}}}"
        for family, names in families.items()
    )


def _hanging(begin: str, text: str) -> str:
    """Text that goes on below where it began, or below its long beginning, as wide as the terminal."""
    width = max(60, shutil.get_terminal_size().columns - 2)
    plain = len(click.unstyle(begin))
    if plain >= _COLUMN_MOST:
        return begin + "\n" + textwrap.fill(text, width, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return begin + textwrap.fill(text, width, initial_indent=" " * plain, subsequent_indent=" " * plain).lstrip()
