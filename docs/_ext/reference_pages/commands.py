"""The command line, from its own tree of commands."""

from __future__ import annotations

import inspect
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
    records = [
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if "--help" not in parameter.opts
    ]
    return "\n\n".join(f"`{name}`\n: {prose(meaning)}" for name, meaning in filter(None, records) if meaning)


def _help(text: str) -> str:
    """A command's help as Markdown; what click leaves as it is written (after a backspace) is a block."""
    parts = (inspect.cleandoc(part) for part in inspect.cleandoc(text).split("\n\n"))
    return "\n\n".join(
        f"```text\n{part.strip(chr(8)).strip()}\n```" if part.startswith("\b") else prose(part) for part in parts
    )


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    depth = "#" * max(2, context.command_path.count(" ") + 1)
    text = _help(command.help or command.short_help or "")
    return (
        f"{depth} {context.command_path}\n\n```text\n{usage}\n```\n\n{text}\n\n{_parameters(command, context)}".rstrip()
    )


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
