"""`squall faults`."""

from __future__ import annotations

import inspect

import click

from squall.cli.printing import json_option, print_json, table
from squall.errors import InputError

__all__ = ["command"]

_WIDE = 100


@click.command("faults")
@click.argument("fault", metavar="[TYPE]", required=False)
@json_option
def command(fault: str | None, as_json: bool) -> None:
    """The faults there are, or everything about one: its fields with units, ranges and defaults."""
    from squall.faults import FAULTS, fault_types

    if fault is None:
        rows = [(tag, " or ".join(FAULTS[tag].targets), _first_sentence(FAULTS[tag])) for tag in fault_types()]
        if as_json:
            print_json(
                [{"type": tag, "targets": list(FAULTS[tag].targets), "summary": summary} for tag, _, summary in rows]
            )
        else:
            click.echo(
                table([(tag, where, what) for tag, where, what in rows], ("type", "target", "what the target feels"))
            )
        return
    model = FAULTS.get(fault)
    if model is None:
        import difflib

        near = difflib.get_close_matches(fault, FAULTS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(fault_types())}"
        raise InputError(f"there is no fault {fault!r}{hint}")
    if as_json:
        print_json(
            {
                "type": fault,
                "targets": list(model.targets),
                "reversible": model.reversible,
                "schema": model.model_json_schema(),
            }
        )
        return
    from squall.faults.options import fault_options

    click.secho(fault, bold=True)
    click.echo(
        f"  happens to a {' or '.join(model.targets)}; {'reversible' if model.reversible else 'cannot be taken back'}\n"
    )
    click.echo(click.wrap_text(inspect.cleandoc(model.__doc__ or ""), 100, "  ", "  ", preserve_paragraphs=True) + "\n")
    for option in fault_options(model):
        default = "required" if option.required else (f"default {option.default}" if option.default else "optional")
        click.echo(f"  {click.style(option.field, bold=True)}  {option.metavar}  ({default})")
        if option.help:
            click.echo(click.wrap_text(option.help, 100, "      ", "      "))
    click.echo(f"\n  squall inject {fault} --help")


def _first_sentence(model: type) -> str:
    text = " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split())
    return text if len(text) <= _WIDE else text[: _WIDE - 3] + "..."
