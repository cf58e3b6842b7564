"""`squall demo`: the shop, a stalled inventory, and what becomes of everything else, four times."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from squall.cli import telemetry

if TYPE_CHECKING:
    from squall.cli.story import Act, Played, Pools
    from squall.engine import Outcome
    from squall.experiment.model import Experiment
    from squall.shop import Shop
    from squall.telemetry.wanted import Wanted

__all__ = ["command"]

_SETTLE_SECONDS_MAX = 30.0


@click.command("demo")
@click.option(
    "--rate",
    default="45/s",
    show_default=True,
    metavar="RATE",
    help="Orders, open loop; 5/s of high priority come on top.",
)
@click.option("--stall", default="20s", show_default=True, metavar="DURATION", help="How long inventory stands still.")
@click.option(
    "--act", "only", type=click.Choice(("bare", "time-outs", "breaker", "limits")), help="Play this act only."
)
@click.option("--go", "go_inventory", is_flag=True, help="Inventory is the one written in Go, built here (needs Go).")
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0, 2**63 - 1))
@telemetry.options
def command(rate: str, stall: str, only: str | None, seed: int, *, go_inventory: bool, **told: str | None) -> None:
    """Watch a shop of five services lose its orders because one of them stands still, and learn to ride it out.

    Gateway, order, payment, inventory and notification are real processes. Inventory stands still (SIGSTOP), four
    times: the shop is bare at first; then a change of its settings, without a restart, gives it time-outs and pools, then
    a breaker and a fallback, then limits and priorities. An order has failed when it has no 2xx within 2 s of its intended send
    time. Takes about two and a half minutes, needs no root, leaves nothing behind. Exit status 0 when the story held.
    """
    from squall.cli.story import ACTS, draw, tell_act, what_did_not_hold
    from squall.shop import Shop

    asked = telemetry.asked(told)
    click.echo("A shop of five services: customers -> gateway -> order -> payment -> inventory.")
    click.echo("Inventory will stand still, and nothing else will be touched. Watch what becomes of the orders.")
    acts = [act for act in ACTS if only in (None, act.name)]
    all_played: list[Played] = []
    with Shop(go_inventory=go_inventory) as shop:
        for number, act in enumerate(acts, 1):
            click.secho(f"\n{number} of {len(acts)}  {act.title}", bold=True)
            click.echo(f"  {act.says}")
            shop.apply(act.settings)
            all_played.append(_play(_experiment(act, shop, rate, stall, seed), act, shop, asked))
            tell_act(all_played[-1])
            if all_played[-1].outcome.exit_status in (4, 5, 130):
                sys.exit(all_played[-1].outcome.exit_status)
        complaints = _settled_books(shop)
    click.echo()
    draw(all_played)
    _say_where(all_played, complaints)
    broken = what_did_not_hold(all_played, complaints) if only is None else complaints
    for line in broken:
        click.secho(f"The story did not hold: {line}", fg="red", err=True)
    if not broken and only is None:
        click.secho("\nThe fault was the same each time. What changed was one settings file.", bold=True)
        click.echo("Next: your own service, in ten minutes: docs/tutorial.md")
    sys.exit(1 if broken else 0)


def _play(experiment: Experiment, act: Act, shop: Shop, asked: Wanted) -> Played:
    from squall.cli.execution import execute
    from squall.cli.story import Played, Pools, numbers_of
    from squall.reports.writing import write_reports

    with Pools(shop) as pools:
        outcome = execute(experiment, listeners=[pools.hear], panel=pools, telemetry=asked)
        _wait_until_drained(pools, outcome)
    write_reports(outcome.run.path, ["html"])
    return Played(act, outcome, numbers_of(outcome, pools.drained), pools.ran_out, pools.totals)


def _wait_until_drained(pools: Pools, outcome: Outcome) -> None:
    """The run ends when its steady state holds again; the last orders may wait a moment longer."""
    until = time.monotonic() + 10
    while pools.drained is None and time.monotonic() < until and outcome.exit_status not in (4, 130):
        time.sleep(0.1)


def _experiment(act: Act, shop: Shop, rate: str, stall: str, seed: int) -> Experiment:
    from squall.cli.story import HIGH
    from squall.experiment.document import read_experiment

    order = f'url: "{shop.urls["gateway"]}/orders", method: POST, body: {{sku: a1}}, success: [2xx], timeout: 2s'
    inventory = f'metrics: "{shop.urls["payment"]}/metrics", dependency: inventory'
    expect = (
        f"""
  expect:
    - breaker: {{{inventory}, opens: {{within: 5s}}, closes: {{within: 20s}}}}
    - fallbacks: {{{inventory}, rate: ">=90%"}}"""
        if act.guarded
        else ""
    )
    return read_experiment(
        f"""
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: inventory-stalls-{act.name}}}
spec:
  description: Do orders keep flowing when inventory does not answer?
  targets: {{process: {{pid: {shop.pids["inventory"]}}}}}
  steadyState:
    - {{name: orders, http: &order {{{order}}}, p95: 300ms, errorRate: 0.5%}}
    - name: {HIGH}
      http: {{{order}, headers: {{X-Priority: high}}}}
      every: 200ms
      p95: 300ms
      errorRate: 10%{expect}
  load: {{http: *order, rate: {rate}}}
  # Turning a third of the orders away is better than losing them all.
  tolerate: {{p95: 1500ms, errorRate: 33%, exceptFor: 3s}}
  # The demo is here to see the shop fall, so its ceiling is high: it ends the fault when for 30 s no order succeeds.
  abort: {{p95: 1h, errorRate: 99%, for: 30s}}
  faults: [{{type: process.pause}}]
  duration: {stall}
  baseline: 5s
  recovery: {{within: 30s}}
  seed: {seed}
""",
        "the demo",
    )


def _settled_books(shop: Shop) -> list[str]:
    """What does not add up in the shop's databases once its orders have settled."""
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    complaints = shop.books().complaints()
    while complaints and time.monotonic() < deadline:
        time.sleep(0.1)
        complaints = shop.books().complaints()
    return complaints


def _say_where(all_played: list[Played], complaints: list[str]) -> None:
    click.echo(
        f"\nThe books do NOT add up: {complaints[0]}"
        if complaints
        else "\nThe books add up: no order was lost or booked twice, also of those that were promised from the price list."
    )
    for played in all_played:
        click.echo(f"  {played.act.title:26} {played.outcome.run.path}/report.html")
    if len(all_played) > 1:
        first, last = all_played[0].outcome.run.id, all_played[-1].outcome.run.id
        click.echo(f"Beside each other: squall compare {first} {last}")
