"""How fast a fault begins, ends, and is undone when Squall itself dies; what the shortest whole experiment costs.

`python tests/benchmarks/recovery/bench.py [--count 50] [--lives 20]` writes docs/benchmarks/recovery.json and
recovery.md. The cells are those of tests/crash: real engines and guardians, which die by themselves at a given step.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from squall.actions.worker import surviving  # noqa: E402 - the path first
from squall.engine.control import ask  # noqa: E402
from squall.kernel import proc  # noqa: E402
from squall.recovery import read_journal  # noqa: E402
from tests.crash.scenarios import SCENARIOS, Place  # noqa: E402
from tests.crash.world import World  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = ROOT / "docs" / "benchmarks"
SQUALL = [sys.executable, "-m", "squall"]
LATE_MS = 40.0
"""A request that takes so long was delayed: the fault's delay is 60 ms."""
PATIENCE_S = 30.0


@dataclass
class Figure:
    """One row: what was measured, in milliseconds."""

    what: str
    reach: str
    ms: list[float] = field(default_factory=list)

    def row(self) -> str:
        """Its line of the table."""
        if not self.ms:
            return f"| {self.what} | | | | | {self.reach} |"
        ranked = sorted(self.ms)
        p99 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
        return f"| {self.what} | {len(ranked)} | {statistics.median(ranked):.1f} | {p99:.1f} | {ranked[-1]:.1f} | {self.reach} |"


def until(condition: Callable[[], bool], step_s: float = 0.0003) -> int:
    """Wait for it; the monotonic time at which it was seen."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the benchmark waited in vain")
        time.sleep(step_s)
    return time.monotonic_ns()


# --- Squall dies


def one_death(world: World, scenario: str, death: str, *, recover: bool = False) -> float:
    """Milliseconds from the death to a target that is back to normal; with `recover` those of `squall recover`."""
    points = world.points(scenario)
    at = max(number for number, name in enumerate(points, 1) if name.startswith("after") and name.endswith(".do")) + 4
    note = world.folder / "note"
    note.write_bytes(b"")
    ended: list[Any] = []
    cell = threading.Thread(target=lambda: ended.append(world.run(scenario, death=death, at=at)))
    cell.start()
    until(lambda: note.read_bytes().endswith(b"\n"))
    died_ns = int(note.read_text().split()[0])
    normal = _normal_again(world, scenario)
    if recover:
        cell.join()
        died_ns = time.monotonic_ns()
        environment = {**os.environ, "SQUALL_STATE": str(world.state.path)}
        subprocess.run([*SQUALL, "recover"], env=environment, stdout=subprocess.DEVNULL, check=True)
    seen_ns = until(normal)
    cell.join()
    world.expect_normal(ended[0], recover=death == "both")
    return (seen_ns - died_ns) / 1e6


def _normal_again(world: World, scenario: str) -> Callable[[], bool]:
    if "pause" in SCENARIOS[scenario].kinds:
        before = world.pulse()[0]
        return lambda: world.pulse()[0] != before
    run = world.state.open_runs()[-1]
    tokens = {entry.action.token for entry in read_journal(run.journal).entries if hasattr(entry.action, "token")}
    workers = [stat.pid for token in tokens for stat in surviving(token)]
    return lambda: not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    stat = proc.read_stat(pid)
    return stat is not None and not stat.gone


# --- a fault begins and ends


@dataclass
class Beats:
    """What the target was seen doing, several times a millisecond: a list of (time, counter)."""

    world: World
    column: int
    seen: list[tuple[int, int]] = field(default_factory=list)
    over: bool = False

    def watch(self) -> None:
        """Until `over`."""
        last = -1
        while not self.over:
            now = self.world.pulse()[self.column]
            if now != last:
                self.seen.append((time.monotonic_ns(), now))
                last = now
            time.sleep(0.0003)

    def first_affected_ns(self, since_ns: int) -> int:
        """When the counter stood still: the last beat before the longest gap that ends after this time."""
        gaps = [(b[0] - a[0], a[0]) for a, b in zip(self.seen, self.seen[1:], strict=False) if b[0] > since_ns]
        return max(gaps)[1]

    def first_normal_ns(self, since_ns: int) -> int:
        """The first beat after this time."""
        return next(at for at, _ in self.seen if at > since_ns)


@dataclass
class Calls:
    """Requests through the route, one after the other: a list of (start, end)."""

    world: World
    seen: list[tuple[int, int]] = field(default_factory=list)
    over: bool = False

    def watch(self) -> None:
        """Until `over`; while the route is not there yet, or no more, nothing is counted."""
        while not self.over:
            began = time.monotonic_ns()
            link = http.client.HTTPConnection("127.0.0.1", self.world.listen, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                link.request("GET", "/")
                link.getresponse().read()
                self.seen.append((began, time.monotonic_ns()))
            link.close()
            time.sleep(0.0005)

    def first_affected_ns(self, since_ns: int) -> int:
        """When the first late request was sent; one that was under way counts as sent at that time."""
        late = [began for began, ended in self.seen if ended > since_ns and (ended - began) / 1e6 > LATE_MS]
        return max(late[0], since_ns)

    def first_normal_ns(self, since_ns: int) -> int:
        """When the first request since then was answered that was not late."""
        return next(e for b, e in self.seen if e > since_ns and (e - max(b, since_ns)) / 1e6 < LATE_MS)


FAULTS: dict[str, tuple[str, dict[str, Any], Callable[[World], Any]]] = {
    "process.pause": ("pause", {}, lambda world: Beats(world, 0)),
    "stress.fd": ("file-limit", {}, lambda world: Beats(world, 1)),
    "tcp.latency": ("toxic-tcp", {"latency": "60ms"}, Calls),
    "http.delay": ("toxic-http", {"delay": "60ms"}, Calls),
}


def one_fault(world: World, name: str, begin: Figure, end: Figure) -> None:
    """Inject it, stop it, and look when the target felt either."""
    scenario, parameters, watcher = FAULTS[name]
    place = Place(world.target.pid, world.name, world.pulse()[2], world.listen, str(world.folder / "fill"))
    spec = SCENARIOS[scenario].document(place)
    spec["faults"][0].update(parameters, duration="20s")
    spec.update(duration="20s", baseline="100ms", steadyState=spec["steadyState"][:1])
    watch = watcher(world)
    watching = threading.Thread(target=watch.watch)
    watching.start()
    ended: list[Any] = []
    cell = threading.Thread(target=lambda: ended.append(world.run(scenario, death="none", spec=spec)))
    cell.start()
    until(lambda: _is_on(world), 0.002)
    run = world.state.open_runs()[-1]
    time.sleep(0.15)  # the fault is on for a while: long enough for a gap that stands out
    asked_ns = time.monotonic_ns()
    ask(run, {"op": "stop"})
    cell.join()
    watch.over = True
    watching.join()
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    decided_ns = next(e["mono_ns"] for e in events if e["kind"] == "stage-entered" and e["stage"] == "inject")
    begin.ms.append(max(0, watch.first_affected_ns(decided_ns) - decided_ns) / 1e6)
    end.ms.append((watch.first_normal_ns(asked_ns) - asked_ns) / 1e6)
    world.expect_normal(ended[0])


def _is_on(world: World) -> bool:
    return any(b'"fault-started"' in run.events.read_bytes() for run in world.state.open_runs() if run.events.exists())


# --- the shortest whole experiment, and its peer

LIFE = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: short}}
spec:
  targets: {{process: {{pid: {pid}}}}}
  steadyState: [{{name: alive, process: {{pid: {pid}}}, every: 20ms}}]
  faults: [{{type: process.pause}}]
  duration: 200ms
  baseline: 200ms
  recovery: {{within: 100ms}}
"""


def one_life(folder: Path, document: Path) -> float:
    """Milliseconds of `squall run` beyond baseline, fault and the watching of the recovery."""
    before = set((folder / "runs").iterdir()) if (folder / "runs").exists() else set()
    began = time.monotonic()
    done = subprocess.run(
        [*SQUALL, "run", "-q", str(document)],
        env={**os.environ, "SQUALL_STATE": str(folder)}, capture_output=True, check=False,
    )  # fmt: skip
    wall_ms = (time.monotonic() - began) * 1e3
    if done.returncode not in (0, 1, 6):
        raise SystemExit(done.stderr.decode())
    (run,) = set((folder / "runs").iterdir()) - before
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    recover_ns = next(e["mono_ns"] for e in events if e["kind"] == "stage-entered" and e["stage"] == "recover")
    healed_ns = [e["mono_ns"] for e in events if e["kind"] == "steady-state-checked"][-1]
    return wall_ms - 400 - (healed_ns - recover_ns) / 1e6


def wall_ms(words: list[str], **given: Any) -> float:
    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **given)
    return (time.monotonic() - began) * 1e3


def chaos_toolkit(folder: Path) -> Path | None:
    """The `chaos` command in an environment of its own, None where it could not be had."""
    try:
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", "chaostoolkit"], check=True, timeout=240)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Chaos Toolkit is left out: {error}", file=sys.stderr)
        return None
    return folder / "bin" / "chaos"


def lives(folder: Path, count: int) -> list[Figure]:
    """Whole lives and start-ups, peers taking turns with Squall."""
    life = Figure("`squall run`: a whole short experiment beyond its own durations", "400 ms")
    chaos_life = Figure("Chaos Toolkit: `chaos run`, empty method (no guardian, nothing durable)", "")
    rows = {
        "--help": Figure("`squall --help`", "100 ms"),
        "--version": Figure("`squall --version`", "60 ms"),
    }
    chaos_help = Figure("Chaos Toolkit: `chaos --help`", "")
    bare = Figure("a bare interpreter (`python -I -S -c pass`)", "")
    script = Path(sys.executable).with_name("squall")
    command = [str(script)] if script.exists() else SQUALL
    chaos = chaos_toolkit(folder / "chaos")
    experiment = folder / "empty.json"
    experiment.write_text(json.dumps({"title": "empty", "description": "empty", "method": []}))
    target = subprocess.Popen(["sleep", "600"])
    document = folder / "short.yaml"
    document.write_text(LIFE.format(pid=target.pid))
    try:
        for _ in range(count):
            life.ms.append(one_life(folder / "state", document))
            for option, figure in rows.items():
                figure.ms.append(wall_ms([*command, option]))
            bare.ms.append(wall_ms([sys.executable, "-I", "-S", "-c", "pass"]))
            if chaos is not None:
                chaos_life.ms.append(wall_ms([str(chaos), "--no-version-check", "run", str(experiment)], cwd=folder))
                chaos_help.ms.append(wall_ms([str(chaos), "--help"], cwd=folder))
    finally:
        target.kill()
        target.wait()
    return [life, chaos_life, *rows.values(), chaos_help, bare]


# --- all of it

INTRODUCTION = """# Recovery: how fast things are normal again

Written by `tests/benchmarks/recovery/bench.py` on {machine}; load average {load} (of 1 minute) when it began. Times in
milliseconds; on a busy machine they are the scheduler's and the disk's too. "Reach" is what is aimed at on a quiet one.

The target is a process that ticks and opens a file every millisecond and answers HTTP. It is normal again when it ticks
(opens files, answers without delay), or, for workers and the proxy, when their processes have ended. The engine dies
right after the step was done and written down; a stopped engine is found and ended by its guardian. Where both die,
steps with a lease end by themselves, and `squall recover` (here with its own start-up) undoes the others.

"Beyond its own durations" leaves out baseline, fault, and the time for which the recovery is watched. Chaos Toolkit is
measured in turns with it, where it could be installed.
"""
HEADER = ("| | n | median | p99 | most | reach |", "|---|---|---|---|---|---|")


def deaths(world: World, count: int) -> list[Figure]:
    cells = [
        ("engine killed, `process.pause` on", "1000 ms", "pause", "engine", False),
        ("engine stopped (SIGSTOP), `process.pause` on", "1000 ms", "pause", "engine-stopped", False),
        ("engine killed, `stress.cpu` on", "1000 ms", "worker-cpu", "engine", False),
        ("engine killed, `tcp.latency` on", "1000 ms", "toxic-tcp", "engine", False),
        ("both killed, `stress.cpu` on (lease)", "1000 ms", "worker-cpu", "both", False),
        ("both killed, `tcp.latency` on (lease)", "1000 ms", "toxic-tcp", "both", False),
        ("both killed, `process.pause` on: `squall recover`", "", "pause", "both", True),
    ]
    figures = [Figure(what, reach) for what, reach, *_ in cells]
    for number in range(count):
        for figure, (_, _, scenario, death, recover) in zip(figures, cells, strict=True):
            figure.ms.append(one_death(world, scenario, death, recover=recover))
        print(f"deaths: {number + 1} of {count}", file=sys.stderr, flush=True)
    return figures


def beginnings(world: World, count: int) -> list[Figure]:
    begin = {name: Figure(f"`{name}`: from inject to the first affected", "50 ms") for name in FAULTS}
    end = {name: Figure(f"`{name}`: from stop to the first normal", "50 ms") for name in FAULTS}
    for number in range(count):
        for name in FAULTS:
            one_fault(world, name, begin[name], end[name])
        print(f"beginnings: {number + 1} of {count}", file=sys.stderr, flush=True)
    return [figure for name in FAULTS for figure in (begin[name], end[name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="of each death, and of each fault")
    parser.add_argument("--lives", type=int, default=20, help="of whole experiments and start-ups")
    options = parser.parse_args()
    load = f"{os.getloadavg()[0]:.1f}"
    tables: dict[str, list[Figure]] = {}
    with tempfile.TemporaryDirectory(prefix="squall-bench-") as place:
        for name in ("world", "lives"):
            Path(place, name).mkdir()
        tables["A short life"] = lives(Path(place, "lives"), options.lives)
        with World(Path(place, "world")) as world:
            tables["A fault begins and ends"] = beginnings(world, options.count)
            tables["Squall dies"] = deaths(world, options.count)
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    lines = [INTRODUCTION.format(machine=machine, load=load)]
    for title in ("Squall dies", "A fault begins and ends", "A short life"):
        lines += [f"## {title}", "", *HEADER, *(figure.row() for figure in tables[title] if figure.ms), ""]
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "recovery.md").write_text("\n".join(lines))
    data = {title: [asdict(figure) for figure in figures] for title, figures in tables.items()}
    (DOCS / "recovery.json").write_text(json.dumps({"machine": machine, "load": load, "tables": data}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
