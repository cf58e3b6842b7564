"""Tells the story of the four acts: the table, the drawing, who ran out of what, and whether it held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.cli.story.acts import Act
    from squall.cli.story.numbers import Numbers, Orders
    from squall.engine import Outcome

__all__ = ["Played", "draw", "tell_act", "what_did_not_hold"]

_FAILED_BARE = 0.90
_FAILED_OTHERWISE = 0.001
_FAILED_LIMITED = 0.40
_HIGH_FAILED = 0.01
_LIVE_P95_S = 1.0
_SHADES = " ▁▂▃▄▅▆▇█"


@dataclass
class Played:
    """An act after it was played."""

    act: Act
    outcome: Outcome
    numbers: Numbers
    ran_out: dict[str, float]
    """Service: seconds after inventory stopped at which all its workers were busy."""
    totals: dict[str, int]

    @property
    def healed(self) -> str:
        """For people."""
        return f"{self.numbers.healed_s:.1f} s" if self.numbers.healed_s is not None else "not seen"


def tell_act(played: Played) -> None:
    """A few lines after each act."""
    numbers = played.numbers
    click.echo(
        f"  {numbers.fault.failed} of {numbers.fault.sent} orders failed ({numbers.fault.share:.0%}), p95"
        f" {_seconds(numbers.fault.p95_s)}, well again after {played.healed};"
        f" of {numbers.high.sent} orders of high priority {numbers.high.sent - numbers.high.failed} were saved."
    )
    if played.ran_out:
        order = sorted(played.ran_out.items(), key=lambda item: item[1])
        said = ", ".join(f"{name} (all {played.totals[name]} workers, {at:.1f} s)" for name, at in order)
        click.echo(f"  Ran out of workers, and when: {said}.")
    else:
        click.echo("  No service ran out of workers.")


def draw(all_played: Sequence[Played]) -> None:
    """The table, and below it each act's orders second by second."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    click.secho("The same fault each time; of the orders that were sent while inventory stood still:", bold=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, side in (
        ("", "left"), ("failed", "right"), ("", "left"), ("p95", "right"),
        ("heals in", "right"), ("high saved", "right"), ("verdict", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify=side, header_style="dim", no_wrap=True)  # type: ignore[arg-type]  # one of its words
    for played in all_played:
        fault, high = played.numbers.fault, played.numbers.high
        table.add_row(
            played.act.title, f"{fault.share:.1%}", Text("█" * round(fault.share * 6), style=_colour(fault.share)),
            _seconds(fault.p95_s), played.healed,
            f"{1 - high.share:.0%}" if high.sent else "-", _verdict(played.outcome.verdict),
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print()
    console.print("[dim]orders that succeeded, second by second; the fault is on between the bars[/dim]")
    for played in all_played:
        console.print(Text.assemble(f"{played.act.title:24}", *_line(played.numbers)))


def _line(numbers: Numbers) -> list[Any]:
    from rich.text import Text

    most = max((second.sent for second in numbers.seconds), default=1) or 1
    began = 5
    ended = began + max(1, round(_length(numbers)))
    cells: list[Any] = []
    for place, second in enumerate(numbers.seconds[: ended + 14]):
        if place in (began, ended):
            cells.append(Text("│", style="magenta"))
        cells.append(Text(_shade(second, most), style=_colour(second.share)))
    return cells


def _length(numbers: Numbers) -> float:
    """How many seconds the fault's orders span."""
    rate = max((second.sent for second in numbers.seconds), default=1) or 1
    return numbers.fault.sent / rate


def _shade(second: Orders, most: int) -> str:
    good = (second.sent - second.failed) / most
    return _SHADES[min(len(_SHADES) - 1, round(good * (len(_SHADES) - 1)))] if good > 0 else "·"


def _colour(share: float) -> str:
    return "green" if share < 0.02 else "yellow" if share < _FAILED_LIMITED else "red"  # noqa: PLR2004 - as thresholds are


def _verdict(verdict: str) -> Any:
    from rich.text import Text

    return Text(verdict, style="bold green" if verdict == "passed" else "red" if verdict == "failed" else "yellow")


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def what_did_not_hold(all_played: Sequence[Played], complaints: Sequence[str]) -> list[str]:
    """What of the story is not so this time; empty when it held."""
    found: list[str] = []
    for played in all_played:
        found += [f"{played.act.title}: {line}" for line in _otherwise(played.numbers)]
    by_name = {played.act.name: played for played in all_played}
    bare, timed, guarded, limited = (by_name[name] for name in ("bare", "time-outs", "breaker", "limits"))
    if bare.numbers.fault.share < _FAILED_BARE:
        found.append(f"bare: {bare.numbers.fault.share:.1%} of the orders failed, not at least {_FAILED_BARE:.0%}")
    if not {"payment", "gateway"} <= set(bare.ran_out) or bare.ran_out["payment"] > bare.ran_out["gateway"]:
        found.append("bare: payment's workers did not run out before the gateway's")
    if timed.numbers.fault.p95_s > _LIVE_P95_S or "gateway" in timed.ran_out:
        found.append("with time-outs the gateway did not stay answering")
    if guarded.numbers.fault.share >= bare.numbers.fault.share:
        found.append("the breaker and the fallback saved no order")
    if limited.numbers.fault.share > _FAILED_LIMITED:
        found.append(f"with limits {limited.numbers.fault.share:.1%} failed, not at most {_FAILED_LIMITED:.0%}")
    if limited.numbers.high.share > _HIGH_FAILED:
        found.append(f"{limited.numbers.high.failed} orders of high priority were lost with limits on")
    for played, verdict in ((bare, "failed"), (limited, "passed")):
        if played.outcome.verdict not in (verdict, "inconclusive"):  # a busy machine cannot tell; the numbers above can
            found.append(f"{played.act.title}: the verdict is {played.outcome.verdict}: {played.outcome.reason}")
    return [*found, *complaints]


def _otherwise(numbers: Numbers) -> list[str]:
    found = [
        f"{phase.share:.2%} of {phase.sent} orders failed {name} the fault, not at most {_FAILED_OTHERWISE:.1%}"
        for name, phase in (("before", numbers.phases["before"]), ("after", numbers.phases["after"]))
        if not phase.sent or phase.share > _FAILED_OTHERWISE
    ]
    return found if numbers.healed_s is not None else [*found, "the shop did not heal in time"]
