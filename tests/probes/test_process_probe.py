"""A process probe sees what a process uses, that it is gone, and that it was restarted."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from squall.probes.process import ProcessProbe
from squall.probes.spec import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.probes.conftest import RunningService


def look(probe: ProcessProbe) -> tuple[str, dict[str, float]]:
    """The outcome, and the gauges by name."""
    request, *gauges = asyncio.run(probe.sample())
    assert request.series == "shop"
    assert all(gauge.outcome == "value" for gauge in gauges)
    return request.outcome, {gauge.series.removeprefix("shop."): gauge.value for gauge in gauges}


def of(**query: object) -> ProcessProbe:
    return ProcessProbe(Probe.model_validate({"name": "shop", "process": query}))


def test_what_a_process_uses() -> None:
    probe = of(pid=os.getpid())
    outcome, first = look(probe)
    assert outcome == "ok"
    assert first["rss"] > 1 << 20
    assert first["threads"] >= 1
    with open(os.devnull), open(os.devnull):  # noqa: PTH123 - two descriptors more, whatever they are
        _, second = look(probe)
    assert second["fds"] >= first["fds"]
    assert "cpu" not in first  # there is no "since the last look" yet
    assert second["cpu"] >= 0
    assert second["restarts"] == 0


def test_cpu_is_in_cores() -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) as process:
        try:
            probe = of(pid=process.pid)
            look(probe)
            samples = []
            for _ in range(4):
                asyncio.run(asyncio.sleep(0.1))
                samples.append(look(probe)[1]["cpu"])
            assert 0.1 < max(samples) < 1.5
        finally:
            process.kill()


def test_a_process_that_ended_is_not_alive_even_as_a_zombie() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    probe = of(pid=process.pid)
    try:
        assert look(probe)[0] == "ok"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and nobody has reaped it
        (request, *_) = asyncio.run(probe.sample())
        assert (request.outcome, request.detail) == ("error", errno.ESRCH)
        assert probe.last_failure
    finally:
        process.communicate()
    assert look(probe)[0] == "error"


def test_a_stopped_process_is_alive(service: RunningService) -> None:
    os.kill(service.process.pid, signal.SIGSTOP)
    assert look(of(port=service.port))[0] == "ok"


def test_a_restart_is_counted_once(service: RunningService, start_service: Callable[[int], RunningService]) -> None:
    probe = of(port=service.port)
    assert look(probe)[1]["restarts"] == 0
    service.process.kill()
    service.process.wait()
    assert look(probe) == ("error", {"restarts": 0.0})
    again = start_service(service.port)
    assert again.process.pid != service.process.pid
    outcome, gauges = look(probe)
    assert (outcome, gauges["restarts"]) == ("ok", 1.0)
    assert "cpu" not in gauges
    assert look(probe)[1]["restarts"] == 1.0


def test_a_process_that_starts_late_was_not_restarted(
    nobody: int, start_service: Callable[[int], RunningService]
) -> None:
    probe = of(port=nobody)
    assert look(probe)[0] == "error"
    start_service(nobody)
    outcome, gauges = look(probe)
    assert (outcome, gauges["restarts"]) == ("ok", 0.0)


def test_several_matches_are_added_up(service: RunningService, start_service: Callable[[int], RunningService]) -> None:
    alone = look(of(command="service.py"))[1]
    other = start_service(0)
    both = look(of(command="service.py"))[1]
    assert both["threads"] >= alone["threads"] + 1
    assert other.port != service.port


def test_a_command_that_nobody_runs_is_an_error_with_a_hint() -> None:
    probe = of(command="no-such-program-here")
    assert look(probe)[0] == "error"
    assert "no process matches command 'no-such-program-here'" in probe.last_failure
