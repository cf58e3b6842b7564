"""`squall inject`: one option group a fault, derived from its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from squall.cli import telemetry
from squall.cli.printing import json_option
from squall.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from squall.units import Duration

__all__ = ["command", "parse_target"]


_FORMS = {
    "process": ("pid:4711", "command:NAME", "port:8083", "unit:NAME"),
    "cgroup": ("cgroup:PATH",),
    "container": ("container:NAME",),
    "netns": ("netns:NAME",),
    "route": ('"route:LISTEN->UPSTREAM"',),
    "middleware": ("middleware:NAME",),
}
"""How each kind of target is written; in quotes where a shell would take the > for itself."""
_PROBES = "What must go on working: an http(s) URL or a TCP address; may be given several times."


class _Seed(click.IntRange):
    """A range so wide that saying it helps nobody."""

    def _describe_range(self) -> str:
        return "0 or more"


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
    """Inject one fault into one target for a while; a probe derived from the target watches it, unless you give --probe.

    \b
    squall inject process.pause --target command:shop-inventory --duration 10s
    squall inject tcp.latency --target "route:127.0.0.1:9000->127.0.0.1:8083" \\
        --latency 300ms --duration 30s

    What a fault takes: squall inject TYPE --help.
    """  # noqa: D301 - the character itself: it tells click to keep these lines as they are


def parse_target(text: str) -> dict[str, Any]:
    """A target as `squall inject` takes it, as the document's `targets` mapping; InputError for anything else."""
    kind, _, value = text.partition(":")
    if kind in ("pid", "port") and value.isascii() and value.isdecimal():
        return {"process": {kind: int(value)}}
    if kind in ("command", "unit") and value:
        return {"process": {kind: value}}
    if kind in ("cgroup", "container", "netns", "middleware") and value:
        return {kind: value}
    if kind == "route" and "->" in value:
        listen, _, upstream = value.partition("->")
        return {"route": {"listen": listen.strip(), "upstream": upstream.strip()}}
    if kind == "route" and value.endswith("-"):
        raise InputError(f"--target {text!r} has lost its end: quote it, or the shell takes the > for itself")
    raise InputError(f"--target {text!r} cannot be read; write {_forms(tuple(_FORMS))}")


def _forms(kinds: tuple[str, ...]) -> str:
    *first, last = [form for kind in kinds for form in _FORMS[kind]]
    return f"{', '.join(first)} or {last}" if first else last


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
        click.Option(["--target", "-t"], required=True, metavar="TARGET", help=f"{_forms(model.targets)}."),
        click.Option(["--duration", "-d"], required=True, metavar="DURATION", help="How long the fault is on."),
        click.Option(["--mode"], metavar="MODE", help="one, all, fixed, fixed-percent, random-max-percent; needed where several match."),
        click.Option(["--value"], metavar="COUNT|PERCENTAGE", help="A count for fixed, a percentage for the percent modes."),
        click.Option(["--follow"], is_flag=True, help="Find the target again when it restarts."),
        click.Option(["--baseline"], default="2s", show_default=True, metavar="DURATION", help="Watched before."),
        click.Option(["--probe"], multiple=True, metavar="URL|HOST:PORT", help=_PROBES),
        click.Option(["--within"], default="30s", show_default=True, metavar="DURATION", help="How soon it must have healed."),
        click.Option(["--seed"], type=_Seed(0, 2**63 - 1), default=0, show_default=True, metavar="NUMBER", help="Decides every draw."),
        click.Option(["--dry-run"], is_flag=True, help="Print targets, mechanisms, steps and undos; touch nothing."),
        click.Option(["--quiet", "-q"], is_flag=True, help="No progress."),
        *telemetry.params(),
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

    fields = {option.field for option in fault_options(FAULTS[tag])}
    fault = fault_from_options(FAULTS[tag], {name: value for name, value in given.items() if name in fields})
    experiment = adhoc(
        fault,
        _targets(given),
        _duration("--duration", given["duration"], "100ms", "24h"),
        baseline=_duration("--baseline", given["baseline"], "0s", "1h"),
        recovery=Recovery(within=_duration("--within", given["within"], "100ms", "1h")),
        expectations=_expectations(given["probe"]),
        seed=given["seed"],
    )
    from squall.cli.execution import execute, finish, show_plan

    if given["dry_run"]:
        show_plan(experiment, as_json=given["as_json"])
        return
    outcome = execute(experiment, quiet=given["quiet"], telemetry=telemetry.asked(given))
    finish(outcome, as_json=given["as_json"])


def _duration(option: str, text: str, least: str, most: str) -> Duration:
    from squall.errors import UnitError
    from squall.units import Duration

    try:
        found = Duration.parse(text)
    except UnitError as error:
        raise InputError(f"{option}: {error}") from None
    if not Duration.parse(least) <= found <= Duration.parse(most):
        raise InputError(f"{option}: {text!r} is out of range: {least} to {most} is allowed")
    return found


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
        raise InputError(_said(error, data, Targets, f"--target {given['target']}")) from None


def _said(error: ValidationError, data: dict[str, Any], model: type[BaseModel], source: str) -> str:
    """What is wrong with an option in the words that a document's errors have; --mode and --value are options of their own."""
    from squall.documents import Document, problems_from_pydantic

    lines = []
    for problem in problems_from_pydantic(error, Document.of(data, source), model):
        line = str(problem).replace(f"{source}: document: ", f"{source}: ")
        lines.append(line.replace(f"{source}: mode", "--mode").replace(f"{source}: value", "--value"))
    return "\n".join(lines)


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
            raise InputError(_said(error, what, Expectation, f"--probe {text}")) from None
    return found
