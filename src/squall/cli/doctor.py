"""`squall doctor`."""

from __future__ import annotations

from typing import Any

import click

from squall.cli.printing import json_option, print_json, table

__all__ = ["command"]


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """What this machine can do: for each fault the mechanism that would be used, how well, and why not another."""
    from squall.faults import fault_types
    from squall.injectors import INJECTORS, Chooser, Host
    from squall.recovery.state import State
    from squall.targets import Protected

    host = Host.look()
    chooser = Chooser(INJECTORS, host)
    rows: list[dict[str, Any]] = []
    for tag in fault_types():
        survey = chooser.survey(tag)
        able = [injector for injector, capability in survey if capability.works is not False]
        rows.append({
            "fault": tag,
            "mechanism": able[0].mechanism if able else None,
            "summary": able[0].summary if able else "",
            "recoverability": able[0].recoverability if able else None,
            "others": [
                {
                    "mechanism": injector.mechanism,
                    "works": capability.works,
                    "reason": capability.reason or f"{able[0].mechanism} is preferred",
                }
                for injector, capability in survey if not able or injector is not able[0]
            ],
        })  # fmt: skip
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
    shown = [
        (row["fault"], row["mechanism"] or click.style("none", fg="red"), row["recoverability"] or "-", row["summary"])
        for row in rows
    ]
    click.echo(table(shown, ("fault", "mechanism", "recovery", "how")))
    refusals = [(row["fault"], other) for row in rows for other in row["others"]]
    for tag, other in refusals:
        click.echo(f"  {tag}: not by {other['mechanism']}: {other['reason']}")
    click.echo(
        "\nlease: ends by itself. guarded: undone by the guardian, else by the next squall command. irreversible: announced before."
    )
