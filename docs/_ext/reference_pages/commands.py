"""The command line, from its own tree of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reference_pages.schema import prose
from squall.cli.app import squall_command

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pages"]


def _tree(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _tree(child, click.Context(child, info_name=name, parent=context))


def _parameters(command: click.Command, context: click.Context) -> str:
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            name, meaning = record
            lines.append(f"`{name}`\n: {meaning or 'See above.'}")
    return "\n\n".join(lines)


def _section(command: click.Command, context: click.Context) -> str:
    usage = context.command_path + " " + " ".join(command.collect_usage_pieces(context))
    text = prose((command.help or command.short_help or "").replace("\b", ""))
    return f"## {context.command_path}\n\n```console\n$ {usage.strip()}\n```\n\n{text}\n\n{_parameters(command, context)}".rstrip()


def pages() -> dict[str, str]:
    """`commands.md`."""
    root = click.Context(squall_command, info_name="squall")
    parts = [
        "# Commands",
        (
            "`--json` prints one JSON document on stdout; progress goes to stderr. What a command's end means is in "
            "[Exit statuses](../exit-statuses.md)."
        ),
        *(_section(command, context) for command, context in _tree(squall_command, root)),
    ]
    return {"commands.md": "\n\n".join(parts) + "\n"}
