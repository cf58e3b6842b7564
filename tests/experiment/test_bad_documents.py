"""A wrong document is refused whole: every problem at once, with file, line, column, path and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.documents import DocumentError
from squall.experiment.document import read_experiment
from squall.faults import fault_types
from tests.experiment.wrong import BODY, HEAD, ROUTE, problems

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = ", ".join(fault_types())

ENVELOPE = [
    ("", ["e.yaml: document: is empty: a document is expected"]),
    ("hello", ["e.yaml:1:1: document: is not a mapping: a document has apiVersion, kind, metadata, spec"]),
    (
        "{}",
        [
            "e.yaml:1:1: apiVersion: is missing: write `apiVersion: squall.dev/v1alpha1`",
            "e.yaml:1:1: kind: is missing: write `kind: Experiment`",
        ],
    ),
    (
        "apiVersion: squall.dev/v1alpha1\nkind: Experiment\n",
        [
            "e.yaml:1:1: spec: is missing: it says what the experiment does",
            "e.yaml:1:1: metadata: is missing: write `metadata: {name: what-it-tries}`",
        ],
    ),
    (
        "apiVersion: squall.dev/v2\nkind: Experiment\nspec: {}\n",
        ["e.yaml:1:13: apiVersion: squall.dev/v2 is of another Squall: this one reads squall.dev/v1alpha1"],
    ),
    (
        "apiVersion: chaos-mesh.org/v1alpha1\nkind: NetworkChaos\n",
        ["e.yaml:1:13: apiVersion: chaos-mesh.org/v1alpha1 is not Squall's: this version reads squall.dev/v1alpha1"],
    ),
    (
        "apiVersion: sqall.dev/v1alpha1\nkind: Experiment\n",
        [
            (
                "e.yaml:1:13: apiVersion: sqall.dev/v1alpha1 is not Squall's: this version reads squall.dev/v1alpha1; "
                "did you mean 'squall.dev/v1alpha1'?"
            )
        ],
    ),
    (
        "apiVersion: 1\nkind: Experiment\n",
        ["e.yaml:1:13: apiVersion: that is not Squall's: this version reads squall.dev/v1alpha1"],
    ),
    (
        "apiVersion: squall.dev/v1alpha1\nkind: Experimnt\n",
        ["e.yaml:2:7: kind: there is no kind 'Experimnt'; did you mean 'Experiment'? (allowed: Experiment)"],
    ),
    (
        "apiVersion: squall.dev/v1alpha1\nkind: [Experiment]\n",
        ["e.yaml:2:7: kind: there is no kind that (allowed: Experiment)"],
    ),
    (
        "apiVersion: squall.dev/v1alpha1\nkind: Schedule\n",
        [
            (
                "e.yaml:2:7: kind: Schedule is not in this version of Squall yet: give its experiment as a document of its own "
                "and start `squall run` from cron or a systemd timer (allowed: Experiment)"
            )
        ],
    ),
    (
        "apiVersion: squall.dev/v1alpha1\nkind: Simulation\n",
        ["e.yaml:2:7: kind: Simulation is not in this version of Squall yet (allowed: Experiment)"],
    ),
    (
        BODY.replace("{name: it}", "{name: It Is, labels: {}}") + "extra: 1\n",
        [
            "e.yaml:3:18: metadata.name: 'It Is' is not a name: lower-case letters, digits, `.` and `-`, at most 63",
            "e.yaml:3:25: metadata.labels: is not known here (allowed: name)",
            "e.yaml:9:1: extra: is not known here (allowed: apiVersion, kind, metadata, spec)",
        ],
    ),
    (
        BODY.replace("{name: it}", "{name: 7}"),
        ["e.yaml:3:18: metadata.name: 7: must be text: put it in quotes"],
    ),
    (
        BODY.replace("{name: it}", "it"),
        ["e.yaml:3:11: metadata: must be a mapping: write `metadata: {name: what-it-tries}`"],
    ),
    (
        BODY + "  name: it\n",
        ["e.yaml:9:3: spec.name: is not known here: a name stands in `metadata`"],
    ),
    (BODY + "---\na: 1\n", ["e.yaml:10:1: document: a second document begins here, e.yaml must hold one"]),
]

SHAPE = [
    (
        HEAD + "  duration: 20s\n",
        ["e.yaml:5:3: spec.faults: is missing"],
    ),
    (HEAD + "  duration: 20s\n  faults: []\n", ["e.yaml:6:11: spec.faults: there are 0 faults; 1 to 64 are allowed"]),
    (HEAD + "  duration: 20s\n  faults: {type: tcp.down}\n", ["e.yaml:6:11: spec.faults: a mapping: must be a list"]),
    (
        BODY.replace("20s", "20"),
        [
            (
                "e.yaml:5:13: spec.duration: 20 has no unit: write a duration such as 250ms, 1.5s, 1m30s; "
                "write '20s' if that is what you mean"
            )
        ],
    ),
    (
        BODY.replace("20s", "20 sec"),
        ["e.yaml:5:13: spec.duration: '20 sec' is not a duration: write it like 250ms, 1.5s, 1m30s"],
    ),
    (
        BODY.replace("20s", "1e999s"),
        ["e.yaml:5:13: spec.duration: '1e999s' is not a duration: write it like 250ms, 1.5s, 1m30s"],
    ),
    (
        BODY.replace("20s", "-1s"),
        ["e.yaml:5:13: spec.duration: '-1s' is not a duration: write it like 250ms, 1.5s, 1m30s"],
    ),
    (BODY.replace("20s", "25h"), ["e.yaml:5:13: spec.duration: '25h' is out of range: 100ms to 24h is allowed"]),
    (
        BODY.replace("20s", ""),
        ["e.yaml:5:3: spec.duration: nothing is not a duration: write it like 250ms, 1.5s, 1m30s"],
    ),
    (
        BODY + "  sede: 3\n",
        [
            "e.yaml:9:3: spec.sede: is not known here; did you mean 'seed'? (allowed: abort, baseline, description, "
            "duration, expect, faults, load, recovery, seed, steadyState, targets, tolerate)".replace(
                "load, name,", "load,"
            )
        ],
    ),
    (BODY + "  seed: -1\n", ["e.yaml:9:9: spec.seed: -1: must be at least 0"]),
    (BODY + '  seed: "7"\n', ["e.yaml:9:9: spec.seed: '7': must be a whole number"]),
    (BODY + "  seed: true\n", ["e.yaml:9:9: spec.seed: true: must be a whole number"]),
    (
        BODY + "  tolerate: {error_rate: 2%}\n",
        [
            (
                "e.yaml:9:14: spec.tolerate.error_rate: is not known here; did you mean 'errorRate'? "
                "(allowed: errorRate, exceptFor, p95)"
            )
        ],
    ),
    (
        BODY + "  tolerate: {errorRate: 0.02}\n",
        [
            (
                "e.yaml:9:25: spec.tolerate.errorRate: 0.02 has no unit: write a percentage such as 0.5%, 40%, 100%; "
                "write '0.02%' or '2%' if that is what you mean"
            )
        ],
    ),
    (BODY + "  abort: {errorRate: 101%}\n", ["e.yaml:9:22: spec.abort.errorRate: '101%' is more than 100%"]),
    (BODY + "  abort: {for: 1ms}\n", ["e.yaml:9:16: spec.abort.for: '1ms' is out of range: 1s to 10m is allowed"]),
    (BODY + "  recovery: 3s\n", ["e.yaml:9:13: spec.recovery: '3s': must be a mapping"]),
]

FAULT = [
    (
        ROUTE + "    - {type: tcp.latenc, latency: 3s}\n",
        [
            f"e.yaml:8:14: spec.faults[0].type: 'tcp.latenc' is not allowed here; did you mean 'tcp.latency'? (allowed: {FAULTS})"
        ],
    ),
    (
        ROUTE + "    - {latency: 3s}\n",
        [f"e.yaml:8:7: spec.faults[0].type: is missing: it says what goes wrong (allowed: {FAULTS})"],
    ),
    (ROUTE + "    - tcp.down\n", ["e.yaml:8:7: spec.faults[0]: 'tcp.down': must be a mapping"]),
    (
        ROUTE + "    - {type: [tcp.down]}\n",
        [f"e.yaml:8:14: spec.faults[0].type: a list is not allowed here (allowed: {FAULTS})"],
    ),
    (
        ROUTE + "    - type: tcp.latency\n      latency: '3'\n",
        ["e.yaml:9:16: spec.faults[0].latency: '3' is not a duration: write it like 250ms, 1.5s, 1m30s"],
    ),
    (
        ROUTE + "    - type: tcp.latency\n      latncy: 3s\n",
        [
            "e.yaml:8:7: spec.faults[0].latency: is missing",
            (
                "e.yaml:9:7: spec.faults[0].latncy: is not known here; did you mean 'latency'? (allowed: after, connections, "
                "correlation, descendants, direction, duration, established, jitter, latency, peers, percent, ports, pulse, targets, type)"
            ),
        ],
    ),
    (
        ROUTE + "    - {type: tcp.down, fault: {type: tcp.down}}\n",
        [
            (
                "e.yaml:8:24: spec.faults[0].fault: is not known here (allowed: after, connections, descendants, "
                "duration, established, peers, ports, pulse, targets, type)"
            )
        ],
    ),
    (
        ROUTE + "    - {type: http.abort, response_headers: {a: b}}\n",
        [
            (
                "e.yaml:8:26: spec.faults[0].response_headers: is not known here; did you mean 'responseHeaders'? (allowed: after, "
                "body, connections, descendants, duration, established, headers, method, path, peers, percent, ports, pulse, "
                "responseHeaders, status, targets, type)"
            )
        ],
    ),
    (
        ROUTE + "    - {type: http.abort, status: 600}\n",
        ["e.yaml:8:34: spec.faults[0].status: 600: must be at most 599"],
    ),
    (
        ROUTE + "    - {type: http.abort, method: G3T}\n",
        [
            "e.yaml:8:34: spec.faults[0].method: 'G3T' does not have the right form (allowed: The request's method: letters, in any case)"
        ],
    ),
    (
        ROUTE + "    - {type: http.abort, headers: {a: 3}}\n",
        ["e.yaml:8:39: spec.faults[0].headers.a: 3: must be text: put it in quotes"],
    ),
    (
        ROUTE + "    - {type: http.replace, on: response}\n",
        ["e.yaml:8:7: spec.faults[0]: give at least one of `status`, `newPath`, `body`, `setHeaders`"],
    ),
    (
        ROUTE + "    - {type: http.patch, on: sideways, body: [1]}\n",
        [
            "e.yaml:8:30: spec.faults[0].on: 'sideways' is not allowed here (allowed: request, response)",
            "e.yaml:8:46: spec.faults[0].body: a JSON merge patch is a mapping, such as {price: 0, discount: null}",
        ],
    ),
    (
        ROUTE + "    - {type: tcp.slicer, average: 8B, variation: 8B}\n",
        ["e.yaml:8:7: spec.faults[0]: `variation` (8B) must be less than `average` (8B)"],
    ),
    (
        BODY.replace("process.pause}", "process.pause, stopped: 3s, every: 2s}"),
        ["e.yaml:8:7: spec.faults[0]: `stopped` (3s) must be shorter than `every` (2s)"],
    ),
    (
        BODY.replace("process.pause}", "process.pause, pulse: {on: 2s}}"),
        ["e.yaml:8:36: spec.faults[0].pulse.off: is missing"],
    ),
]

TOGETHER = [
    (
        BODY.replace("process.pause}", "process.pause, targets: {route: {listen: 'a:1', upstream: 'b:2'}}}"),
        ["e.yaml:8:14: spec.faults[0].type: process.pause happens to a process, but its targets select a route"],
    ),
    (
        BODY.replace("process.pause", "stress.cpu, targets: {route: {listen: 'a:1', upstream: 'a:2'}}"),
        [
            "e.yaml:8:14: spec.faults[0].type: stress.cpu happens to a process or a cgroup or a container, but its targets select a route"
        ],
    ),
    (
        BODY.replace("process.pause", "process.pause, after: 20s"),
        ["e.yaml:8:36: spec.faults[0].after: 20s is not before the end of the experiment's duration (20s)"],
    ),
    (
        BODY.replace("process.pause", "process.pause, after: 10s, duration: 11s"),
        ["e.yaml:8:51: spec.faults[0].duration: it ends 21s after the start, beyond the experiment's duration (20s)"],
    ),
    (
        BODY.replace("process.pause", "process.pause, pulse: {on: 10s, off: 10s}"),
        ["e.yaml:8:36: spec.faults[0].pulse: on and off take 20s, so the fault's 20s would hold no second pulse"],
    ),
    (
        BODY.replace("process.pause", "process.pause, pulse: {on: 10ms, off: 10ms}").replace("20s", "1h"),
        ["e.yaml:8:36: spec.faults[0].pulse: 1h would hold 180000 pulses; at most 10000 are allowed"],
    ),
    (
        BODY.replace("process.pause", "process.kill, pulse: {on: 1s, off: 1s}"),
        [
            "e.yaml:8:35: spec.faults[0].pulse: process.kill ends its target, so a second pulse needs `follow: true` in the targets"
        ],
    ),
    (
        ROUTE + "    - {type: tcp.down}\n    - {type: tcp.down, targets: {route: {listen: 'a:1', upstream: 'c:3'}}}\n",
        ["e.yaml:9:41: spec.faults[1].targets.route: a route at a:1 already leads to b:2, it cannot also lead to c:3"],
    ),
    (
        BODY
        + "  steadyState:\n    - {name: a, tcp: 'x:1'}\n    - {name: a, tcp: 'x:2'}\n    - {name: load, tcp: 'x:2'}\n"
        "    - {name: a.rss, tcp: 'x:2'}\n",
        [
            "e.yaml:11:14: spec.steadyState[1].name: another probe is called 'a' already: names are unique",
            "e.yaml:12:14: spec.steadyState[2].name: the name 'load' is the load's own",
            "e.yaml:13:14: spec.steadyState[3].name: 'a.rss' looks like a value of the probe 'a': use another name",
        ],
    ),
    (
        BODY + "  baseline: 0s\n  steadyState:\n    - {name: a, tcp: 'x:1'}\n",
        [
            "e.yaml:9:13: spec.baseline: 0s is too short to see the steady state: 'a' is sampled every 1s, and 3 samples are needed"
        ],
    ),
    (
        BODY + "  baseline: 0s\n  load: {http: {url: 'http://x'}, rate: 5/s}\n",
        ["e.yaml:9:13: spec.baseline: with a load it must be longer than 0s: what is normal is measured in it"],
    ),
    (
        BODY + "  tolerate: {p95: 10s, errorRate: 60%}\n",
        [
            "e.yaml:5:3: spec.abort.p95: 5s is below what `tolerate` accepts (10s): the ceiling stands above it",
            "e.yaml:5:3: spec.abort.errorRate: 50% is below what `tolerate` accepts (60%): the ceiling stands above it",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), ENVELOPE + SHAPE + FAULT + TOGETHER)
def test_each_mistake_is_said_with_its_place(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_one_mistake_does_not_hide_another_of_a_different_sort() -> None:
    """A slip of the pen, a wrong unit, a sum that does not come out and a missing target: one reading shows all."""
    text = (
        BODY.replace("process.pause", "process.pause, after: 30s")
        + "    - {type: tcp.latency, latency: 3}\n"
        + "    - {type: process.kill, targets: {cgroup: a}}\n  sede: 1\n  steadyState:\n"
        + "    - {name: a, tcp: 'x:1', evry: 1s}\n    - {name: b, tcp: 'x:1', every: 30s}\n"
    )
    assert [line.partition(": ")[2].partition(":")[0] for line in problems(text)] == [
        "spec.baseline",
        "spec.faults[0].after",
        "spec.faults[1].latency",
        "spec.faults[2].type",
        "spec.sede",
        "spec.steadyState[0].evry",
    ]


def test_a_mistake_in_the_targets_is_not_repeated_for_every_fault() -> None:
    text = BODY.replace("command: shop", "comand: shop") + "    - {type: process.kill}\n    - {type: stress.cpu}\n"
    assert len(problems(text)) == 1


def test_a_document_that_cannot_be_read_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        read_experiment(tmp_path / "none.yaml")
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        read_experiment(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"description: caf\xe9\n")
    with pytest.raises(DocumentError, match=r"latin\.yaml:1:17: document: is not UTF-8"):
        read_experiment(latin)
