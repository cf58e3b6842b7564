"""`squall inject`: one option group a fault, derived from its model."""

from __future__ import annotations

from typing import Any

import click

from squall.cli.printing import json_option
from squall.errors import InputError

__all__ = ["command", "parse_target"]


_TARGETS = "pid:4711, command:NAME, port:8083, unit:NAME, cgroup:PATH or route:LISTEN->UPSTREAM"
_PROBES = "What must go on working: an http(s) URL or a TCP address; may be given several times."


class _Faults(click.Group):
    """Each fault is a command with the options of its model."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        from squall.faults import fault_types

        return fault_types()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        from squall.faults import FAULTS

        return _command(cmd_name) if cmd_name in FAULTS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        from squall.faults import FAULTS, fault_types

        if args[0] not in FAULTS:
            near = difflib.get_close_matches(args[0], FAULTS, 1)
            ctx.fail(
                f"there is no fault {args[0]!r}; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(fault_types())}"
            )
        return super().resolve_command(ctx, args)


@click.group("inject", cls=_Faults, subcommand_metavar="TYPE [OPTIONS]")
def command() -> None:
    r"""Inject one fault into one target for a while; a probe derived from the target watches it, unless you give --probe.

    \b
    squall inject process.pause --target command:shop-inventory --duration 10s
    squall inject tcp.latency --target route:127.0.0.1:9000->127.0.0.1:8083 --latency 300ms --duration 30s
    """


def parse_target(text: str) -> dict[str, Any]:
    """A target as `squall inject` takes it, as the document's `targets` mapping; InputError for anything else."""
    kind, _, value = text.partition(":")
    if kind in ("pid", "port") and value.isdecimal():
        return {"process": {kind: int(value)}}
    if kind in ("command", "unit") and value:
        return {"process": {kind: value}}
    if kind == "cgroup" and value:
        return {"cgroup": value}
    if kind == "route" and "->" in value:
        listen, _, upstream = value.partition("->")
        return {"route": {"listen": listen.strip(), "upstream": upstream.strip()}}
    raise InputError(f"--target {text!r} cannot be read; write {_TARGETS}")


def _command(tag: str) -> click.Command:
    from squall.faults import FAULTS
    from squall.faults.options import fault_options

    model = FAULTS[tag]
    params: list[click.Parameter] = []
    for option in fault_options(model):
        extra: dict[str, Any] = (
            {"is_flag": True} if option.kind == "flag" else {"metavar": option.metavar, "multiple": option.repeated}
        )
        default = f"  [default: {option.default}]" if option.default and not option.required else ""
        params.append(
            click.Option([option.name, option.field], help=f"{option.help}{default}", required=option.required, **extra)
        )
    params += [
        click.Option(["--target", "-t"], required=True, metavar="TARGET", help=_TARGETS),
        click.Option(["--duration", "-d"], required=True, metavar="DURATION", help="How long the fault is on."),
        click.Option(["--mode"], help="one, all, fixed, fixed-percent, random-max-percent; needed where several match."),
        click.Option(["--value"], help="A count for fixed, a percentage for the percent modes."),
        click.Option(["--follow"], is_flag=True, help="Find the target again when it restarts."),
        click.Option(["--baseline"], default="2s", show_default=True, metavar="DURATION", help="Watched before."),
        click.Option(["--probe"], multiple=True, metavar="URL|HOST:PORT", help=_PROBES),
        click.Option(["--within"], default="30s", show_default=True, metavar="DURATION", help="How soon it must have healed."),
        click.Option(["--seed"], type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Decides every draw."),
        click.Option(["--dry-run"], is_flag=True, help="Print targets, mechanisms, steps and undos; touch nothing."),
        click.Option(["--quiet", "-q"], is_flag=True, help="No progress."),
    ]  # fmt: skip
    built = click.Command(
        tag,
        params=params,
        callback=lambda **given: _inject(tag, given),
        help=model.__doc__,
        short_help=(model.__doc__ or "").split(".")[0],
    )
    return json_option(built)


def _inject(tag: str, given: dict[str, Any]) -> None:
    from squall.experiment.adhoc import adhoc
    from squall.experiment.model import Recovery
    from squall.faults import FAULTS
    from squall.faults.options import fault_from_options, fault_options
    from squall.units import Duration

    fields = {option.field for option in fault_options(FAULTS[tag])}
    fault = fault_from_options(FAULTS[tag], {name: value for name, value in given.items() if name in fields})
    experiment = adhoc(
        fault,
        _targets(given),
        Duration.parse(given["duration"]),
        baseline=Duration.parse(given["baseline"]),
        recovery=Recovery(within=Duration.parse(given["within"])),
        expectations=_expectations(given["probe"]),
        seed=given["seed"],
    )
    from squall.cli.execution import execute, finish, show_plan

    if given["dry_run"]:
        show_plan(experiment, as_json=given["as_json"])
        return
    finish(execute(experiment, quiet=given["quiet"]), as_json=given["as_json"])


def _targets(given: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from squall.experiment.model import Targets

    data = parse_target(given["target"])
    if given["mode"] is not None:
        data["mode"] = given["mode"]
    if given["value"] is not None:
        data["value"] = int(given["value"]) if given["value"].isdecimal() else given["value"]
    try:
        return Targets.model_validate({**data, "follow": given["follow"]})
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]}" if first["loc"] in {("mode",), ("value",)} else f"--target {given['target']}"
        raise InputError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _expectations(probes: tuple[str, ...]) -> list[Any]:
    from pydantic import ValidationError

    from squall.experiment.model import Expectation

    found = []
    for number, text in enumerate(probes):
        what: dict[str, Any] = {"http": {"url": text}} if text.startswith(("http://", "https://")) else {"tcp": text}
        try:
            found.append(
                Expectation.model_validate({"name": f"probe-{number + 1}", "every": "50ms", "errorRate": "5%", **what})
            )
        except ValidationError as error:
            raise InputError(f"--probe {text}: {error.errors()[0]['msg']}") from None
    return found
