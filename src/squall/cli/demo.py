"""`squall demo`: the shop, a stalled inventory, and what becomes of everything else."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from squall.engine import Outcome
    from squall.events import Stamped
    from squall.experiment.model import Experiment
    from squall.probes.samples import Series
    from squall.shop import Pool, Shop

__all__ = ["command"]

_CHAIN = ("gateway", "order", "payment", "inventory")
"""The way of an order, from the customer on."""
_LOOK_S = 0.25
_FAILED_UNDER_FAULT = 0.90
_FAILED_OTHERWISE = 0.001
_BAR = 24


@click.command("demo")
@click.option("--rate", default="50/s", show_default=True, metavar="RATE", help="Orders, open loop.")
@click.option("--stall", default="20s", show_default=True, metavar="DURATION", help="How long inventory stands still.")
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0, 2**63 - 1))
def command(rate: str, stall: str, seed: int) -> None:
    """Watch a shop of five services lose its orders because one of them stands still, and come back.

    Gateway, order, payment, inventory and notification are real processes that share a bare HTTP client: no time-out,
    no retry, no breaker. Only inventory is touched (SIGSTOP). An order has failed when it has no 2xx within 2 s of its
    intended send time. Takes about a minute, needs no root, leaves nothing behind. Exit status 0 when the story held.
    """
    from squall.shop import Shop

    click.secho(
        "A shop of five services, one bare HTTP client between them: no time-out, no retry, no breaker.", bold=True
    )
    click.echo(
        "customers -> gateway -> order -> payment -> inventory. In a moment inventory will stand still, and nothing else.\n"
    )
    with Shop() as shop:
        experiment = _experiment(shop, rate, stall, seed)
        with _Pools(shop) as pools:
            outcome = _run(experiment, pools)
        complaints = _settled_books(shop)
    _tell(outcome, pools, complaints)


def _experiment(shop: Shop, rate: str, stall: str, seed: int) -> Experiment:
    from squall.experiment.document import read_experiment

    return read_experiment(
        f"""
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: inventory-stalls}}
spec:
  description: Do orders keep flowing when inventory does not answer?
  targets: {{process: {{pid: {shop.pids["inventory"]}}}}}
  steadyState:
    - name: orders
      http: &order {{url: "{shop.urls["gateway"]}/orders", method: POST, body: {{sku: a1}}, success: [2xx], timeout: 2s}}
      p95: 300ms
      errorRate: 0.5%
  load: {{http: *order, rate: {rate}}}
  # The demo is here to see the shop fall, so its ceiling is high: it ends the fault when for 30 s no order succeeds.
  abort: {{p95: 1h, errorRate: 99%, for: 30s}}
  faults: [{{type: process.pause}}]
  duration: {stall}
  baseline: 10s
  recovery: {{within: 30s}}
  seed: {seed}
""",
        "the demo",
    )


class _Pools:
    """Looks at every service's workers four times a second, and remembers when each ran out."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._stop = shop, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pools", daemon=True)
        self.now: dict[str, Pool | None] = {}
        self.ran_out: dict[str, float] = {}
        """Service: seconds after the fault's start at which all its workers were busy."""
        self.fault_began: float | None = None
        self.fault_ended: float | None = None
        self.drained: float | None = None
        """When, after the fault, no order waited for a worker any more, by the same clock."""
        self.say: Any = lambda _line: None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def hear(self, stamped: Stamped) -> None:
        from squall.events import FaultEnded, FaultStarted

        if isinstance(stamped.event, FaultStarted):
            self.fault_began = time.monotonic()
        elif isinstance(stamped.event, FaultEnded):
            self.fault_ended = time.monotonic()

    def _watch(self) -> None:
        with ThreadPoolExecutor(len(_CHAIN)) as asking:  # a stalled service must not hold up the look at the others
            while not self._stop.wait(_LOOK_S):
                pending = {
                    name: asking.submit(self._shop.pool, name)
                    for name in _CHAIN
                    if name != "inventory" or self.fault_began is None
                }
                asked = time.monotonic()
                for name, answer in pending.items():
                    self._look(name, answer.result())
                waiting = [pool is None or pool.exhausted or pool.queue for pool in self.now.values()]
                if (
                    self.fault_ended is not None
                    and asked > self.fault_ended
                    and self.drained is None
                    and not any(waiting)
                ):
                    self.drained = asked

    def _look(self, name: str, pool: Pool | None) -> None:
        self.now[name] = pool
        if pool is not None and pool.exhausted and self.fault_began is not None and name not in self.ran_out:
            self.ran_out[name] = time.monotonic() - self.fault_began
            self.say(f"all {pool.total} workers of {name} are busy, {self.ran_out[name]:.1f} s after inventory stopped")

    def rows(self) -> list[Any]:
        """Bars for the live panel."""
        from rich.text import Text

        lines = [Text("workers busy", style="dim")]
        for name in _CHAIN:
            pool = self.now.get(name)
            if name == "inventory" and self.fault_began is not None:
                lines.append(
                    Text.assemble((f"  {name:10}", ""), ("stands still" if name not in self.ran_out else "", "magenta"))
                )
                continue
            if pool is None:
                lines.append(Text(f"  {name:10}?"))
                continue
            filled = round(pool.busy / pool.total * _BAR)
            colour = "red" if pool.exhausted else "yellow" if filled > _BAR // 2 else "green"
            lines.append(
                Text.assemble(
                    f"  {name:10}", ("█" * filled, colour), ("░" * (_BAR - filled), "grey30"), f" {pool.busy:3}/{pool.total}",
                    (f"  {pool.queue} wait" if pool.queue else "", "dim"),
                )
            )  # fmt: skip
        return lines


def _run(experiment: Experiment, pools: _Pools) -> Outcome:
    from squall.cli.execution import execute

    return execute(experiment, listeners=[pools.hear], panel=pools)


def _settled_books(shop: Shop) -> list[str]:
    """What does not add up in the shop's databases once its orders have settled."""
    deadline = time.monotonic() + 15
    complaints = shop.books().complaints()
    while complaints and time.monotonic() < deadline:
        time.sleep(0.1)
        complaints = shop.books().complaints()
    return complaints


@dataclass
class _Share:
    """Orders of one phase."""

    sent: int = 0
    failed: int = 0
    latencies: list[int] = field(default_factory=list)

    def add(self, latency_ns: int, *, ok: bool) -> None:
        """One more order."""
        self.sent += 1
        self.failed += not ok
        self.latencies.append(latency_ns)

    @property
    def share(self) -> float:
        """Of those sent, how many failed."""
        return self.failed / self.sent if self.sent else 0.0

    def row(self, name: str) -> tuple[str, ...]:
        """For the table."""
        ordered = sorted(self.latencies)
        p95 = f"{ordered[int(0.95 * (len(ordered) - 1))] / 1e6:.0f} ms" if ordered else "-"
        return name, str(self.sent), str(self.failed), f"{self.share:.1%}", p95


def _phases(outcome: Outcome, drained: float | None) -> tuple[dict[str, _Share], float | None]:
    """Orders before, under the fault, while healing and after; and the time to heal in seconds.

    Healed is: the steady state holds again, and no order waits for a worker any more.
    """
    from squall.events import FaultEnded, FaultStarted, VerdictReached, decode
    from squall.probes.samples import OUTCOMES, read_samples

    began = ended = healed_ns = None
    for line in outcome.run.events.read_text().splitlines():
        stamped = decode(line)
        if isinstance(stamped.event, FaultStarted):
            began = stamped.stamp.mono_ns
        elif isinstance(stamped.event, FaultEnded):
            ended = stamped.stamp.mono_ns
        elif isinstance(stamped.event, VerdictReached):
            healed_ns = stamped.event.recover_ns
    phases = {"before": _Share(), "inventory stands still": _Share(), "healing": _Share(), "after": _Share()}
    if began is None or ended is None:
        return phases, None
    healed = max(ended + (healed_ns or 0), round((drained or 0) * 1e9))
    series: Series = read_samples(outcome.run.samples)["load"]
    for time_ns, latency_ns, result in zip(series.time_ns, series.latency_ns, series.outcome, strict=True):
        phase = (  # what was under way when the fault began is the fault's
            "before"
            if time_ns + latency_ns < began
            else "inventory stands still"
            if time_ns < ended
            else "healing"
            if time_ns < healed
            else "after"
        )
        phases[phase].add(latency_ns, ok=OUTCOMES[result] == "ok")
    return phases, (healed - ended) / 1e9 if healed_ns is not None and drained is not None else None


def _tell(outcome: Outcome, pools: _Pools, complaints: list[str]) -> None:
    from squall.cli.printing import table
    from squall.reports.writing import write_reports

    phases, healed_s = _phases(outcome, pools.drained)
    click.echo()
    click.echo(table([share.row(name) for name, share in phases.items()], ("orders", "sent", "failed", "share", "p95")))
    click.echo("\nWho ran out of what, when (seconds after inventory stopped):")
    for name, at in sorted(pools.ran_out.items(), key=lambda item: item[1]):
        pool = pools.now.get(name)
        click.echo(
            f"  {at:5.1f} s  {name}: all {pool.total if pool else '?'} workers wait for an answer that does not come"
        )
    click.echo(
        f"  {'healed ' + format(healed_s, '.1f') + ' s after inventory went on' if healed_s is not None else 'not healed'}; ",
        nl=False,
    )
    click.echo(
        "the books add up: no order was lost or booked twice"
        if not complaints
        else f"the books do NOT add up: {complaints[0]}"
    )
    html = write_reports(outcome.run.path, ["html"])["html"]
    click.echo(f"\nReport: {html}\nRun:    {outcome.run.id} (squall list, squall report, squall compare)")
    broken = _what_did_not_hold(outcome, phases, healed_s, pools, complaints)
    for line in broken:
        click.secho(f"The story did not hold: {line}", fg="red", err=True)
    if not broken:
        click.secho(
            "\nOnly inventory was touched. The others fell because they waited for it without a limit.", bold=True
        )
        click.echo("Next: your own service, in ten minutes: docs/tutorial.md")
    sys.exit(outcome.exit_status if outcome.exit_status in (5, 130) else 1 if broken else 0)


def _what_did_not_hold(
    outcome: Outcome, phases: dict[str, _Share], healed_s: float | None, pools: _Pools, complaints: list[str]
) -> list[str]:
    found = []
    under = phases["inventory stands still"]
    if outcome.verdict not in ("failed", "aborted"):
        found.append(f"the verdict is {outcome.verdict}: {outcome.reason}")
    if under.share < _FAILED_UNDER_FAULT:
        found.append(f"{under.share:.1%} of the orders failed under the fault, not at least {_FAILED_UNDER_FAULT:.0%}")
    found += [
        f"{phases[name].share:.2%} of {phases[name].sent} orders failed {name}, not at most {_FAILED_OTHERWISE:.1%}"
        for name in ("before", "after")
        if not phases[name].sent or phases[name].share > _FAILED_OTHERWISE
    ]
    if healed_s is None:
        found.append("the shop did not heal in time")
    if not {"payment", "gateway"} <= set(pools.ran_out) or pools.ran_out["payment"] > pools.ran_out["gateway"]:
        found.append("payment's workers did not run out before the gateway's")
    return [*found, *complaints]
