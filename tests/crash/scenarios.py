"""One short experiment for each kind of step: together they take every action there is through do and undo."""

from __future__ import annotations

from typing import Any

__all__ = ["SCENARIOS", "document"]

SCENARIOS: dict[str, dict[str, Any]] = {
    "pause": {"type": "process.pause"},
    "pause-cycle": {"type": "process.pause", "stopped": "20ms", "every": "40ms"},
    "signal": {"type": "process.kill", "signal": "SIGUSR1"},
    "file-limit": {"type": "stress.fd", "leave": 0},
    "worker-cpu": {"type": "stress.cpu", "load": "20%"},
    "worker-memory": {"type": "stress.memory", "amount": "4MiB"},
    "worker-disk": {"type": "stress.disk", "fill": "1MiB", "spare": "1MiB"},
    "toxic": {"type": "tcp.latency", "latency": "20ms"},
    "route-down": {"type": "tcp.down"},
}
"""Scenario: its fault. `toxic` and `route-down` also have the step that starts the proxy of the run."""


def document(scenario: str, *, pid: int, port: int, listen: int, folder: str) -> dict[str, Any]:
    """The experiment's spec, ready for `Experiment.model_validate`."""
    fault = dict(SCENARIOS[scenario])
    if fault["type"] == "stress.disk":
        fault["path"] = folder
    if fault["type"].startswith("tcp."):
        targets: dict[str, Any] = {"route": {"listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{port}"}}
    else:
        targets = {"process": {"pid": pid}}
    return {
        "name": f"crash-{scenario}", "targets": targets, "faults": [{**fault, "targets": targets, "duration": "120ms"}],
        "steadyState": [{"name": "alive", "process": {"pid": pid}, "every": "20ms"}],
        "duration": "120ms", "baseline": "80ms", "recovery": {"within": "100ms"},
    }  # fmt: skip
