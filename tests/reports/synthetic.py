"""Folders as runs leave them, made up: the same files, written by the same writers, with numbers from a seeded generator."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from squall import events as ev
from squall.actions import Look, Pause, Signal
from squall.experiment.document import experiment_document, read_experiment
from squall.probes.samples import RECORD, Sample, SampleWriter
from squall.recovery.journal import Journal
from squall.targets.identity import ProcessIdentity

if TYPE_CHECKING:
    from pathlib import Path

WALL_NS = 1_772_373_909_000_000_000
MONO_NS = 5_000_000_000_000

SOURCE = """\
# Orders keep flowing when inventory answers late.
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {name: inventory-is-slow}
spec:
  description: "Orders keep flowing when inventory answers late."
  targets: {route: {listen: "127.0.0.1:18083", upstream: "127.0.0.1:8083"}}
  steadyState:
    - name: orders
      http: {url: "http://127.0.0.1:8080/orders", method: POST, body: {sku: a1}}
      p95: 300ms
      errorRate: 0.5%
    - {name: stock, process: {command: shop-inventory}}
  tolerate: {p95: 1200ms, errorRate: 2%, exceptFor: 10s}
  abort: {errorRate: 50%, for: 5s}
  load: {http: {url: "http://127.0.0.1:8080/orders", method: POST}, rate: 50/s}
  faults:
    - {type: tcp.latency, latency: 600ms, jitter: 100ms}
  duration: 30s
  baseline: 10s
  seed: 7
"""

DOCUMENT = experiment_document(read_experiment(SOURCE))

HOST = {"hostname": "shop-1", "kernel": "6.12.9", "cpus": 4, "python": "3.11.9"}
SERIES = ("load", "orders", "stock", "stock.rss", "stock.cpu", "stock.fds", "stock.threads")
FAULT = "0-tcp.latency"


@dataclass
class RunWriter:
    """Writes a run's folder; times are seconds since the run began."""

    folder: Path
    run: str = "20260301-140509-inventory-is-slow-7f3a"
    series: tuple[str, ...] = SERIES
    seq: int = 0
    samples: list[Sample] = field(default_factory=list)
    wall_ns: int = WALL_NS

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "experiment.yaml").write_text(SOURCE, encoding="utf-8")

    def event(self, at_s: float, event: ev.Event) -> None:
        """Append one event."""
        ns = round(at_s * 1e9)
        line = ev.encode(ev.Stamped(ev.Stamp(self.run, self.seq, self.wall_ns + ns, MONO_NS + ns), event))
        self.seq += 1
        with (self.folder / "events.jsonl").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")

    def raw(self, text: str) -> None:
        """Append text to the events as it is."""
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(text)

    def request(self, series: str, at_s: float, latency_s: float, outcome: str = "ok", detail: int = 200) -> None:
        """One request."""
        self.samples.append(Sample(series, MONO_NS + round(at_s * 1e9), round(latency_s * 1e9), outcome, 0.0, detail))  # type: ignore[arg-type]

    def value(self, series: str, at_s: float, value: float) -> None:
        """One value of a gauge."""
        self.samples.append(Sample(series, MONO_NS + round(at_s * 1e9), 0, "value", value))

    def write_samples(self) -> None:
        """Write samples.bin."""
        writer = SampleWriter(self.folder / "samples.bin", self.series)
        writer.write(sorted(self.samples, key=lambda sample: sample.time_ns + sample.latency_ns))
        writer.close()


def opening(run: RunWriter, document: dict[str, Any] | None = None) -> None:
    """Everything up to the injection."""
    run.event(0.0, ev.RunStarted("inventory-is-slow", 7, "0.1.0", HOST, document or DOCUMENT))
    run.event(0.01, ev.StageEntered("define"))
    label = "route 127.0.0.1:18083 -> 127.0.0.1:8083"
    selected = {"kind": "route", "label": label, "listen": "127.0.0.1:18083", "upstream": "127.0.0.1:8083"}
    run.event(0.02, ev.TargetsSelected(FAULT, 1, [selected]))
    run.event(0.03, ev.PlanChosen(
        FAULT, "tcp.latency", label, "proxy", "lease", "late by 0.1 ms at the median, never early",
        ["connections that do not go through the proxy", "UDP"], ["proxy route 127.0.0.1:18083", "toxic latency on it"],
        ["drop the toxic", "drain and close the route"],
        [{"mechanism": "netem", "reason": "this kernel has no sch_netem module"}],
        {"latency": "600ms", "jitter": "100ms", "percent": "100%", "direction": "downstream"},
    ))  # fmt: skip


def traffic(
    run: RunWriter,
    length_s: float,
    on: list[tuple[float, float]],
    *,
    rate: float = 50,
    slow_s: float = 0.6,
    lost: float = 0.0,
) -> None:
    """Load, a probe and a process's gauges: quick and sound, but slow (and failing, a share of `lost`) while the fault is on."""
    draw = random.Random(7)
    for number in range(int(length_s * rate)):
        at_s = number / rate
        faulty = any(start <= at_s < end for start, end in on)
        latency_s = min(
            10.0, draw.lognormvariate(-3.6, 0.45) + (max(0.0, draw.gauss(slow_s, slow_s / 10)) if faulty else 0.0)
        )
        if faulty and draw.random() < lost:
            run.request("load", at_s, 10.0, "timeout", 0)
        elif draw.random() < 0.0008:
            run.request("load", at_s, latency_s, "error", 503)
        else:
            run.request("load", at_s, latency_s)
    for second in range(int(length_s)):
        faulty = any(start <= second < end for start, end in on)
        run.request("orders", float(second), draw.lognormvariate(-3.6, 0.4) + (slow_s if faulty else 0.0))
        run.request("stock", float(second), 0.0001)
        run.value("stock.rss", float(second), 48e6 + second * 2e4 + (9e6 if faulty else 0) + draw.gauss(0, 2e5))
        run.value("stock.cpu", float(second), max(0.01, draw.gauss(0.12 if faulty else 0.34, 0.02)))
        run.value("stock.fds", float(second), 34 + (draw.randrange(20, 40) if faulty else draw.randrange(3)))
        run.value("stock.threads", float(second), 12)


def finding(
    expectation: str,
    outcome: str,
    reason: str,
    threshold: float,
    unit: str,
    numbers: dict[str, tuple[float, float, float, int]],
) -> ev.Finding:
    """A finding, its numbers as (value, low, high, n)."""
    names = ("value", "low", "high", "n")
    return ev.Finding(
        expectation, "load", outcome, reason, threshold, unit,  # type: ignore[arg-type]
        {phase: dict(zip(names, row, strict=True)) for phase, row in numbers.items()},
    )  # fmt: skip


def findings(*, broken: bool = False) -> list[ev.Finding]:
    """What the analysis would say of the traffic above."""
    p95 = {"before": (52e6, 47e6, 58e6, 500), "during": (738e6, 721e6, 756e6, 1500), "after": (51e6, 46e6, 57e6, 740)}
    rate = {
        "before": (0.0, 0.0, 0.006, 500),
        "during": (0.0009, 0.0002, 0.003, 1500),
        "after": (0.0013, 0.0002, 0.005, 740),
    }
    if broken:
        p95["during"] = (10e9, 9.9e9, 10e9, 1500)
        rate["during"] = (0.412, 0.371, 0.455, 1500)
    during = "broken" if broken else "met"
    return [
        finding("steady before: p95 ≤ 300 ms", "met", "52 ms is below 300 ms", 300e6, "ns", p95),
        finding(
            "tolerated: p95 ≤ 1.2 s",
            during,
            "10 s for 28 s, allowed 10 s" if broken else "738 ms is below 1.2 s",
            1.2e9,
            "ns",
            p95,
        ),
        finding(
            "tolerated: errors ≤ 2 %",
            during,
            "41.2 % for 28 s, allowed 10 s" if broken else "0.09 % is below 2 %",
            0.02,
            "ratio",
            rate,
        ),
        finding(
            "steady after: errors ≤ 0.5 %", "unclear", "the interval reaches from 0.02 % to 0.5 %", 0.005, "ratio", rate
        )
        if not broken
        else finding("steady after: p95 ≤ 300 ms", "met", "51 ms is below 300 ms", 300e6, "ns", p95),
    ]


def injection(run: RunWriter, on: list[tuple[float, float]]) -> None:
    """The fault goes on and off, with its steps and hits."""
    run.event(0.05, ev.ActionDone(0, FAULT, "proxy-route", "proxy listens on 127.0.0.1:18083 for 127.0.0.1:8083"))
    run.event(0.06, ev.StageEntered("inject"))
    run.event(0.07, ev.SteadyStateChecked("before", holds=True, detail="p95 52 ms, errors 0 %"))
    for number, (start, end) in enumerate(on, 1):
        run.event(start, ev.FaultStarted(FAULT, 2_100_000))
        run.event(start, ev.ActionDone(number, FAULT, "toxic", "latency 600ms ± 100ms on 127.0.0.1:18083"))
        if number == 1:
            run.event(start, ev.StageEntered("monitor", 30_000_000_000))
        run.event(end - 0.01, ev.FaultHits(FAULT, {"connections": 40 * number, "bytes": 91_234 * number}))
        run.event(
            end, ev.ActionUndone(number, FAULT, "toxic", "latency dropped", verified=True, detail="the route passes")
        )
        run.event(end, ev.FaultEnded(FAULT, 1_300_000))


def closing(run: RunWriter, at_s: float, verdict: ev.VerdictReached, status: int) -> None:
    """Recovery, the verdict, the end."""
    run.event(at_s - 0.3, ev.StageEntered("recover"))
    run.event(
        at_s - 0.2, ev.ActionUndone(0, FAULT, "proxy-route", "route closed", verified=True, detail="the port is free")
    )
    run.event(at_s - 0.1, verdict)
    run.event(at_s, ev.RunFinished(status))
    run.write_samples()


def healthy(folder: Path) -> Path:
    """A run that passed."""
    run, on = RunWriter(folder), [(10.0, 40.0)]
    opening(run)
    injection(run, on)
    traffic(run, 55, on)
    run.event(54.5, ev.SteadyStateChecked("after", holds=True, detail="p95 51 ms, errors 0.13 %"))
    closing(
        run,
        55.2,
        ev.VerdictReached(
            "passed",
            "Orders stayed within what is tolerated and healed 1.2 s after the fault.",
            findings(),
            800_000_000,
            1_200_000_000,
        ),
        0,
    )
    return folder


def failed(folder: Path) -> Path:
    """A pulsed stall that was not ridden out."""
    run, on = RunWriter(folder), [(10.0, 18.0), (22.0, 30.0), (34.0, 42.0)]
    opening(run)
    injection(run, on)
    traffic(run, 60, on, slow_s=4.0, lost=0.5)
    run.event(59.0, ev.SteadyStateChecked("after", holds=True, detail="p95 51 ms, errors 0 %"))
    closing(
        run,
        60.2,
        ev.VerdictReached(
            "failed",
            "p95 was above 1.2 s for 28 s; 10 s are tolerated.",
            findings(broken=True),
            1_100_000_000,
            4_300_000_000,
        ),
        1,
    )
    return folder


def cut_off(folder: Path, *, stopped: bool = True, recovered: bool = True, at_s: float = 21.4) -> Path:
    """A run whose engine was killed in mid-fault, in the middle of writing an event; undone by the guardian, or not at all.

    The journal is a real one, of real steps on a process (this one, which none of it touches).
    """
    run = RunWriter(folder, wall_ns=time.time_ns() - round(at_s * 1e9) - 100_000_000)
    opening(run)
    journal = Journal.create(folder / "journal.jsonl", run.run, "inventory-is-slow")
    pause = journal.intend(FAULT, Pause(ProcessIdentity.mine(), "shop-inventory"))
    kill = journal.intend("1-process.kill", Signal(ProcessIdentity.mine(), "shop-payment", "SIGKILL"))
    if stopped:
        run.event(10.0, ev.StageEntered("inject"))
        journal.done(pause)
        journal.done(kill)
        run.event(10.0, ev.FaultStarted(FAULT, 900_000))
    run.event(at_s, ev.ProbeWindow("load", 50, 0, 640_000_000))
    run.raw('{"run":"x","seq":99,"wall_ns":17723739')
    traffic(run, at_s, [(10.0, at_s)])
    run.write_samples()
    with (folder / "samples.bin").open("ab") as file:
        file.write(b"torn")
    if recovered:
        journal.undone(pause, Look(normal=True, detail="its state is S"), "guardian")
        journal.close()
    else:
        journal.release()
        _forget_the_engine(folder / "journal.jsonl")
    return folder


def _forget_the_engine(path: Path) -> None:
    """Make the journal's engine one that is gone: the same pid, started at another time."""
    header, rest = path.read_text().split("\n", 1)
    data = json.loads(header)
    data["engine"]["start_ticks"] += 1
    path.write_text(json.dumps(data) + "\n" + rest)


def aborted(folder: Path) -> Path:
    """A run that its ceiling ended."""
    run, on = RunWriter(folder), [(10.0, 17.2)]
    opening(run)
    injection(run, on)
    traffic(run, 30, on, slow_s=6.0, lost=0.8)
    run.event(17.1, ev.AbortTriggered("ceiling", "errors 81 % over the trailing 5 s, above 50 %", {"errors": 0.81}))
    verdict = ev.VerdictReached("aborted", "errors 81 % over the trailing 5 s, above 50 %", [])
    closing(run, 30.2, verdict, 3)
    return folder


def nothing_injected(folder: Path) -> Path:
    """A run that was not steady before, so that nothing was injected."""
    run = RunWriter(folder)
    opening(run)
    traffic(run, 10, [])
    run.event(10.0, ev.SteadyStateChecked("before", holds=False, detail="p95 420 ms, above 300 ms"))
    run.event(10.1, ev.StageEntered("recover"))
    run.event(10.2, ev.VerdictReached("inconclusive", "the steady state did not hold before the fault", []))
    run.event(10.3, ev.RunFinished(6))
    run.write_samples()
    return folder


def long(folder: Path, seconds: int = 3600, rate: int = 1000) -> Path:
    """A long run with a heavy load and a fast pulse: its samples are written as bytes, a block a second."""
    run, start = RunWriter(folder), 10.0
    opening(run)
    run.event(start, ev.StageEntered("monitor"))
    for pulse in range(int(seconds / 4) - 10):
        run.event(start + pulse * 4, ev.FaultStarted(FAULT, 2_000_000))
        run.event(start + pulse * 4 + 1, ev.FaultEnded(FAULT, 1_000_000))
    run.event(seconds, ev.VerdictReached("passed", "all 4 thresholds were kept", findings(), 0, 0))
    run.event(seconds + 0.1, ev.RunFinished(0))
    draw = random.Random(3)
    latencies = [round(draw.lognormvariate(-3.6, 0.45) * 1e9) for _ in range(rate)]
    run.write_samples()
    with (folder / "samples.bin").open("ab") as file:
        for second in range(seconds):
            slow = second >= 10 and second % 4 == 2
            base = MONO_NS + second * 1_000_000_000
            rows = (
                (base + i * 1_000_000_000 // rate, latency * (9 if slow else 1)) for i, latency in enumerate(latencies)
            )
            file.write(b"".join(RECORD.pack(at_ns, latency_ns, 0.0, 0, 0, 200) for at_ns, latency_ns in rows))
    return folder
