"""Short experiments that together take every action there is through do and undo, alone and several at once."""

from __future__ import annotations

import os
import platform
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squall.injectors.line import LineInjector
from squall.injectors.netem import HtbInjector
from squall.kernel import proc
from squall.kernel.bpf import loads

__all__ = ["SCENARIOS", "Place", "Scenario"]


@dataclass(frozen=True)
class Place:
    """What a cell's experiment may use: the target's pid, name and port, a free port, a folder to fill.

    And the pid of a process in a network namespace of its own (0 where there is none).
    """

    pid: int
    name: str
    port: int
    listen: int
    folder: str
    apart: int = 0
    go: int = 0
    """The pid of a Go service, 0 where there is none."""
    chaos: str = ""
    """A folder in which middlewares can be driven."""


@dataclass(frozen=True)
class Scenario:
    """One experiment: its faults, and the kinds of steps that it is known to take."""

    kinds: frozenset[str]
    faults: tuple[dict[str, Any], ...]
    duration: str = "100ms"
    follow: bool = False
    """Select by name, and let the target be killed when it is first hit: the world starts it again."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that the engine has besides."""
    own_cgroup: bool = False
    """The engine runs in a cgroup of its own, as a service does: then its guardian gets one too."""

    def missing(self) -> str:  # noqa: PLR0911 - a reason each
        """Why it cannot be run here, "" when it can."""
        apart = any(
            fault["type"].startswith(("dns.", "network.", "tcp.delay")) or "connections" in fault
            for fault in self.faults
        )
        if apart and os.geteuid() != 0:
            return "needs root for a network namespace: run the tests with sudo to see this"
        if "nft-table" in self.kinds and shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") is None:
            return "there is no nft: apt-get install nftables"
        if "hijack" in self.kinds and loads("hijack").works is False:
            return f"this kernel leads no connections away: {loads('hijack').reason}"
        if "root-qdisc" in self.kinds and (queue := HtbInjector().capable(None)).works is False:  # type: ignore[arg-type]
            return queue.reason
        holding = any(fault["type"] in ("network.delay", "tcp.delay") for fault in self.faults)
        if holding and (line := LineInjector().capable(None)).works is False:  # type: ignore[arg-type]
            return line.reason
        if self.own_cgroup and os.geteuid() != 0:
            return "needs root to make a cgroup: run the tests with sudo to see this"
        if self.own_cgroup and not Path(UNIFIED, "cgroup.procs").is_file():
            return f"needs the unified cgroup hierarchy at {UNIFIED}"
        if "nil-receiver" in self.kinds and not GO:
            return "needs Go for a service in it: apt-get install golang-go"
        if self.kinds & {"clock-skew", "nil-receiver", "python-hook"} and (
            os.geteuid() != 0 or platform.machine() != "x86_64"
        ):
            return "needs root on x86-64 to write the target's memory: run the tests with sudo to see this"
        return ""

    def document(self, place: Place) -> dict[str, Any]:
        """The experiment's spec, ready for `Experiment.model_validate`."""
        faults = [self._fault(dict(fault), place) for fault in self.faults]
        alive = {"command": place.name} if self.follow else {"pid": place.pid}
        probes: list[dict[str, Any]] = [{"name": "alive", "process": alive, "every": "20ms"}]
        if any("route" in fault["targets"] and fault["type"].startswith("http.") for fault in faults):
            url = f"http://127.0.0.1:{place.listen}/"
            probes.append({"name": "through", "http": {"url": url}, "every": "20ms", "timeout": "1s"})
        return {
            "name": "crash", "faults": faults, "targets": faults[0]["targets"], "steadyState": probes,
            "duration": self.duration, "baseline": "60ms", "recovery": {"within": "100ms"},
        }  # fmt: skip

    def _fault(self, fault: dict[str, Any], place: Place) -> dict[str, Any]:
        if fault["type"] == "stress.disk":
            fault["path"] = place.folder
        if "connections" in fault or fault["type"] == "tcp.delay":
            fault["targets"] = {"process": {"pid": place.apart}}
        elif fault.get("targets") == {"middleware": "crash"}:
            register(place.pid, Path(place.chaos))
        elif fault["type"].startswith(("tcp.", "http.")):
            fault["targets"] = {"route": {"listen": f"127.0.0.1:{place.listen}", "upstream": f"127.0.0.1:{place.port}"}}
        elif fault.get("targets") == {"netns": "apart"}:
            fault["targets"] = {"netns": f"/proc/{place.apart}/ns/net"}
        elif fault["type"].startswith("network."):
            fault["targets"] = {"process": {"pid": place.apart}}
        elif fault.get("language") == "go":
            fault["targets"] = {"process": {"pid": place.go}}
        elif self.follow:
            fault["targets"] = {"process": {"command": place.name}, "follow": True}
        else:
            fault["targets"] = {"process": {"pid": place.pid}}
        return {"duration": self.duration, **fault}


def register(pid: int, folder: Path) -> None:
    """Let this process have a middleware called "crash", as far as Squall can tell (sdk/PROTOCOL.md)."""
    folder.mkdir(exist_ok=True)
    stat = proc.read_stat(pid)
    assert stat is not None
    head = struct.pack("<8sQQ", b"SQCHAOS1", pid, stat.start_ticks)
    (folder / f"crash.{pid}.live").write_bytes(head.ljust(96, b"\0") + b"python".ljust(32, b"\0"))


def _one(kinds: str, **fault: Any) -> Scenario:
    return Scenario(frozenset(kinds.split()), (fault,))


GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
_MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
UNIFIED = next((path for path in _MOUNTS if Path(path, "cgroup.procs").is_file()), _MOUNTS[1])
"""Where the unified hierarchy is: hybrid machines have it in a folder of its own."""

SCENARIOS: dict[str, Scenario] = {
    "pause": _one("pause", type="process.pause"),
    "pause-cycle": _one("pause-cycle", type="process.pause", stopped="20ms", every="40ms"),
    "signal": _one("signal", type="process.kill", signal="SIGUSR1"),
    "file-limit": _one("file-limit", type="stress.fd", leave=0),
    "clock-skew": _one("clock-skew kernel-worker", type="time.skew", offset="1h"),
    "nil-receiver": _one("nil-receiver kernel-worker", type="process.panic", language="go", percent="50%"),
    "python-hook": _one(
        "python-hook", type="process.panic", function="__main__:open_one", exception="OSError: no luck", percent="50%"
    ),
    "syscall-patch": _one("syscall-patch", type="io.delay", calls=["open"], delay="5ms"),
    "dns": _one("own-cgroup kernel-worker", type="dns.error", names=["*"]),
    "dns-netns": _one("kernel-worker nft-table", type="dns.error", names=["*"], targets={"netns": "apart"}),
    "network": _one("own-cgroup kernel-worker", type="network.loss", percent="50%", direction="both"),
    "network-filter": Scenario(
        frozenset({"own-cgroup", "tc-filter", "kernel-worker"}), ({"type": "network.partition"},),
        environment=(("SQUALL_TC", "clsact"),),
    ),
    "hijack-inbound": _one("hijack toxic", type="tcp.latency", latency="20ms", connections="inbound"),
    "hijack-outbound": _one("own-cgroup hijack toxic", type="tcp.reset", connections="outbound"),
    "hijack-down": _one("hijack route-down", type="tcp.down", connections="inbound"),
    "line": _one("own-cgroup kernel-worker", type="network.delay", latency="20ms", direction="both"),
    "tcp-policy": _one("own-cgroup kernel-worker", type="tcp.delay", policy={"0.0.0.0:0": "20ms"}),
    "root-qdisc": Scenario(
        frozenset({"own-cgroup", "root-qdisc", "kernel-worker"}), ({"type": "network.bandwidth", "rate": "1mbit"},),
        environment=(("SQUALL_WITHOUT", "line,netem"),),
    ),
    "worker-cpu": _one("worker", type="stress.cpu", load="20%"),
    "worker-memory": _one("worker", type="stress.memory", amount="4MiB"),
    "worker-disk": _one("worker", type="stress.disk", fill="1MiB", spare="1MiB"),
    "toxic-tcp": _one("proxy-route toxic", type="tcp.latency", latency="20ms"),
    "toxic-http": _one("proxy-route toxic", type="http.delay", delay="20ms"),
    "middleware": _one("middleware-worker", type="http.delay", delay="20ms", targets={"middleware": "crash"}),
    "route-down": _one("proxy-route route-down", type="tcp.down"),
    "several": Scenario(
        frozenset({"pause", "file-limit", "worker", "proxy-route", "toxic"}),
        (
            {"type": "process.pause", "after": "20ms", "duration": "60ms"},
            {"type": "stress.fd", "leave": 0, "after": "10ms", "duration": "80ms"},
            {"type": "stress.cpu", "load": "10%"},
            {"type": "tcp.timeout", "timeout": "20ms", "after": "30ms", "duration": "40ms"},
        ),
    ),
    "pulses": Scenario(
        frozenset({"pause"}), ({"type": "process.pause", "pulse": {"on": "20ms", "off": "20ms"}},), duration="100ms"
    ),
    "follow": Scenario(frozenset({"pause"}), ({"type": "process.pause"},), duration="500ms", follow=True),
    "follow-kill": Scenario(
        frozenset({"signal"}), ({"type": "process.kill", "signal": "SIGKILL", "pulse": {"on": "20ms", "off": "180ms"}},),
        duration="300ms", follow=True,
    ),
    "guardian-cgroup": Scenario(frozenset({"pause", "guardian-cgroup"}), ({"type": "process.pause"},), own_cgroup=True),
}  # fmt: skip
