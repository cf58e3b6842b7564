"""Every command by name, loaded when it is called."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "squall_command"]

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("squall.cli.doctor", "What this machine can do, by which mechanism, and why not by a better one."),
    "faults": ("squall.cli.faults", "The faults there are, or everything about one."),
    "schema": ("squall.cli.schema", "The JSON Schema of the experiment document, for editors."),
    "run": ("squall.cli.run", "Run an experiment from its document."),
    "inject": ("squall.cli.inject", "Inject one fault into one target, watched and undone."),
    "list": ("squall.cli.list_runs", "The runs, newest first."),
    "status": ("squall.cli.status", "Where a run is."),
    "stop": ("squall.cli.stop", "End a run: it recovers and reports."),
    "adjust": ("squall.cli.adjust", "Change a fault that is on, without a gap."),
    "recover": ("squall.cli.recover", "Undo what a killed run left behind."),
    "halt": ("squall.cli.halt", "Everything recovers now; nothing new starts until `halt --off`."),
    "report": ("squall.cli.report", "Write a run's report from its files."),
    "compare": ("squall.cli.compare", "Set two runs side by side."),
    "proxy": ("squall.cli.proxy", "Serve the fault proxy, with Toxiproxy's HTTP API."),
    "standin": ("squall.cli.standin", "Serve scripted HTTP answers in a dependency's place."),
    "kernels": ("squall.cli.kernels", "What Squall can do on other kernels: boots them and tries."),
    "demo": ("squall.cli.demo", "Watch a shop of microservices fall over and come back."),
}
"""Name: module (its `command` is the command) and the line that `--help` shows without loading it."""

_GROUPS = (
    ("Look", ("doctor", "faults", "schema", "kernels", "demo")),
    ("Experiment", ("run", "inject", "list", "status", "stop", "adjust", "report", "compare")),
    ("Recover", ("recover", "halt")),
    ("Serve", ("proxy", "standin")),
)
_NO_RECOVERY = frozenset({"recover", "faults", "schema"})
"""Commands that do not look for orphans first: recover does it itself, the others only print what is in the package."""


class _Commands(click.Group):
    """Loads a command's module when the command is called; before it runs, orphaned runs are undone."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(len(name) for name in COMMANDS)
        for title, names in _GROUPS:
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: object) -> object:  # type: ignore[override]
        from squall.cli.exits import exiting

        with exiting():
            return super().main(args, prog_name, standalone_mode=False, **extra)  # type: ignore[call-overload, arg-type, unused-ignore]

    def invoke(self, ctx: click.Context) -> object:
        name = ctx._protected_args[0] if ctx._protected_args else None  # noqa: SLF001 - click 8 keeps the command's name there
        asks_for_help = "--help" in ctx.args or "-h" in ctx.args
        if name in COMMANDS and name not in _NO_RECOVERY and not asks_for_help:
            from squall.cli.exits import recover_first

            recover_first()
        return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="squall", message="squall %(version)s")
def squall_command() -> None:
    """Chaos engineering for microservices: inject faults under control, watch, judge, and leave nothing behind.

    A first look: `squall demo`. A first experiment: `squall inject process.pause --target command:my-service --duration 10s`.
    """
