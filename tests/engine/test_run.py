"""One experiment from define to recover, on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from squall.engine.control import ask, running
from squall.errors import CannotInject, Conflict, Halted, InputError, TargetError
from squall.events import (
    AbortTriggered,
    ActionDone,
    ActionUndone,
    FaultAdjusted,
    FaultEnded,
    FaultHits,
    FaultStarted,
    Interrupted,
    PlanChosen,
    ProbeWindow,
    RunFinished,
    RunStarted,
    StageEntered,
    SteadyStateChecked,
    TargetFollowed,
    TargetLost,
    VerdictReached,
)
from squall.recovery import read_journal

if TYPE_CHECKING:
    from tests.engine.conftest import Bench, Service


def paused(service: Service, duration: str = "300ms", **more: Any) -> dict[str, Any]:
    targets = {"process": {"pid": service.pid}}
    fault = {"type": "process.pause", "targets": targets, "duration": duration, **more}
    return {"targets": targets, "duration": duration, "faults": [fault]}


def watched(service: Service, **more: Any) -> dict[str, Any]:
    return {"name": "web", "http": {"url": service.url, "timeout": "1s"}, "every": "20ms", **more}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_five_stages_in_their_order(bench: Bench, service: Service) -> None:
    outcome = bench.execute(paused(service))
    assert (outcome.verdict, outcome.exit_status, outcome.residue) == ("passed", 0, ())
    assert [event.stage for event in bench.of(StageEntered)] == ["define", "inject", "monitor", "analyse", "recover"]
    assert bench.events == bench.written(outcome), "what listeners hear is what is written"
    assert [stamped.stamp.seq for stamped in bench.events] == list(range(len(bench.events)))
    kinds = [type(stamped.event) for stamped in bench.events]
    for earlier, later in (
        (RunStarted, PlanChosen),
        (PlanChosen, FaultStarted),
        (FaultStarted, FaultEnded),
        (FaultEnded, VerdictReached),
    ):
        assert kinds.index(earlier) < kinds.index(later)
    assert kinds[-1] is RunFinished
    assert service.state() in "SR"
    assert bench.state.open_runs() == []
    assert outcome.run.document.read_text().startswith("apiVersion:")


@pytest.mark.slow
def test_the_pause_is_felt_undone_and_counted(bench: Bench, service: Service) -> None:
    seen: list[str] = []

    async def look(bench: Bench) -> None:
        await bench.until(FaultStarted)
        seen.append(service.state())

    outcome = bench.execute({**paused(service), "steadyState": [watched(service)]}, meanwhile=look)
    assert seen == ["T"]
    assert bench.of(FaultHits)[-1].counters == {"stops": 1}
    assert [event.action for event in bench.of(ActionDone)] == ["pause"]
    [undone] = [event for event in bench.of(ActionUndone) if event.action == "pause"]
    assert undone.verified
    assert read_journal(outcome.run.journal).closed
    assert any(event.series == "web" and event.count for event in bench.of(ProbeWindow))


def test_a_system_that_is_not_steady_is_not_touched(bench: Bench, service: Service) -> None:
    expectation = {"name": "web", "tcp": f"127.0.0.1:{free_port()}", "every": "20ms"}
    outcome = bench.execute({**paused(service), "steadyState": [expectation]})
    assert (outcome.verdict, outcome.exit_status) == ("inconclusive", 6)
    assert "steady state did not hold" in outcome.reason
    assert bench.of(FaultStarted) == []
    assert [event.holds for event in bench.of(SteadyStateChecked)] == [False]
    assert "Errno 111" in outcome.reason, "it says why the probe failed"


@pytest.mark.slow
def test_the_ceiling_ends_the_fault_at_once(bench: Bench, service: Service) -> None:
    began = time.monotonic()
    outcome = bench.execute(
        {
            **paused(service, "20s"),
            "steadyState": [watched(service, http={"url": service.url, "timeout": "100ms"})],
            "abort": {"errorRate": "50%", "for": "1s", "samples": 5},
        }
    )
    assert (outcome.verdict, outcome.exit_status) == ("aborted", 3)
    assert bench.of(AbortTriggered)[0].cause == "ceiling"
    assert time.monotonic() - began < 15
    assert service.state() in "SR"


@pytest.mark.slow
def test_a_stall_is_seen_while_it_lasts_not_when_its_requests_time_out(bench: Bench, service: Service) -> None:
    began = time.monotonic()
    outcome = bench.execute(
        {
            **paused(service, "30s"),
            "load": {"http": {"url": service.url, "timeout": "20s"}, "rate": "50/s"},
            "abort": {"p95": "2s", "for": "2s", "samples": 10},
        }
    )
    assert outcome.verdict == "aborted"
    assert bench.of(AbortTriggered)[0].evidence["waiting"] > 0
    assert time.monotonic() - began < 19, "no request had timed out"


def test_an_interrupted_run_recovers_and_reports(bench: Bench, service: Service) -> None:
    async def interrupt(bench: Bench) -> None:
        await bench.until(FaultStarted)
        assert bench.run is not None
        bench.run.interrupt("SIGINT")
        bench.run.interrupt("SIGINT")

    outcome = bench.execute(paused(service, "20s"), meanwhile=interrupt)
    assert outcome.exit_status == 130
    assert [event.signal for event in bench.of(Interrupted)] == ["SIGINT"]
    assert service.state() in "SR"


def test_stop_status_and_adjust_through_the_socket(bench: Bench, service: Service) -> None:
    listen = free_port()
    targets = {"route": {"listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{service.port}"}}
    fault = {"type": "tcp.latency", "latency": "10ms", "targets": targets, "duration": "20s"}

    async def meddle(bench: Bench) -> None:
        await bench.until(FaultStarted)
        [run] = await asyncio.to_thread(running, bench.state)
        status = await asyncio.to_thread(ask, run, {"op": "status"})
        assert status["stage"] == "monitor"
        assert [(one["fault"], one["on"]) for one in status["faults"]] == [("0-tcp.latency", True)]
        changed = await asyncio.to_thread(
            ask, run, {"op": "adjust", "fault": "tcp.latency", "parameters": {"latency": "30ms"}}
        )
        assert changed["parameters"]["latency"] == "30ms"
        for wrong in ({"fault": "9-x", "parameters": {}}, {"fault": "tcp.latency", "parameters": {"latency": "soon"}}):
            with pytest.raises(InputError):
                await asyncio.to_thread(ask, run, {"op": "adjust", **wrong})
        with pytest.raises(InputError, match="cannot 'dance'"):
            await asyncio.to_thread(ask, run, {"op": "dance"})
        await asyncio.to_thread(ask, run, {"op": "stop"})

    outcome = bench.execute({"targets": targets, "duration": "20s", "faults": [fault]}, meanwhile=meddle)
    assert (outcome.verdict, outcome.exit_status, outcome.reason) == ("aborted", 3, "squall stop")
    assert bench.of(FaultAdjusted)[0].parameters["latency"] == "30ms"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", listen)) != 0, "the route is gone"


@pytest.mark.slow
def test_a_route_delays_what_passes(bench: Bench, service: Service) -> None:
    listen = free_port()
    targets = {"route": {"listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{service.port}"}}
    fault = {"type": "tcp.latency", "latency": "200ms", "targets": targets, "duration": "3s"}
    expectation = {
        "name": "web",
        "http": {"url": f"http://127.0.0.1:{listen}/", "timeout": "1s"},
        "every": "20ms",
        "p95": "150ms",
    }
    outcome = bench.execute(
        {
            "targets": targets,
            "duration": "3s",
            "faults": [fault],
            "steadyState": [expectation],
            "tolerate": {"p95": "150ms", "exceptFor": "0s"},
        }
    )
    assert outcome.exit_status in (1, 6)
    [verdict] = bench.of(VerdictReached)
    slow = next(
        finding for finding in verdict.findings if "p95" in finding.expectation and "while" in finding.expectation
    )
    assert slow.outcome == "broken"
    assert slow.numbers["during"]["value"] > 200e6
    assert bench.of(FaultHits)[-1].counters["connections"] > 2


def test_a_fault_that_never_hit_anything_is_no_pass(bench: Bench, service: Service) -> None:
    targets = {"route": {"listen": f"127.0.0.1:{free_port()}", "upstream": f"127.0.0.1:{service.port}"}}
    fault = {"type": "tcp.latency", "latency": "10ms", "targets": targets, "duration": "500ms"}
    outcome = bench.execute(
        {"targets": targets, "duration": "500ms", "faults": [fault], "steadyState": [watched(service)]}
    )
    assert (outcome.verdict, outcome.exit_status) == ("inconclusive", 6)
    assert "never hit anything: 0-tcp.latency" in outcome.reason


@pytest.mark.slow
def test_a_target_that_dies_is_said(bench: Bench, service: Service) -> None:
    async def end(bench: Bench) -> None:
        await bench.until(FaultStarted)
        service.process.kill()
        await asyncio.to_thread(service.process.wait)

    outcome = bench.execute(paused(service, "1s"), meanwhile=end)
    assert outcome.verdict != "passed"
    assert outcome.residue == ()
    assert len(bench.of(TargetLost)) == 1
    assert bench.state.open_runs() == []


@pytest.mark.slow
def test_a_target_that_restarts_is_followed_when_asked(bench: Bench) -> None:
    from tests.engine.conftest import start_service

    first = start_service()
    started = []
    targets = {"process": {"port": first.port}, "follow": True}
    fault = {"type": "process.pause", "targets": targets, "duration": "3s"}

    async def restart(bench: Bench) -> None:
        await bench.until(FaultStarted)
        first.process.kill()
        await asyncio.to_thread(first.process.wait)
        started.append(await asyncio.to_thread(start_service, first.port))
        await bench.until(TargetFollowed)
        deadline = time.monotonic() + 5
        while started[0].state() != "T":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    expectation = {"name": "here", "command": "true", "every": "100ms"}
    outcome = bench.execute(
        {"targets": targets, "duration": "3s", "faults": [fault], "steadyState": [expectation]}, meanwhile=restart
    )
    try:
        assert outcome.residue == ()
        assert bench.of(TargetFollowed)[0].new["identity"]["pid"] == started[0].pid
        assert started[0].state() in "SR", "the successor was let go"
    finally:
        started[0].process.kill()
        started[0].process.wait()


@pytest.mark.slow
def test_pulses_go_on_and_off(bench: Bench, service: Service) -> None:
    outcome = bench.execute(paused(service, "1s", pulse={"on": "100ms", "off": "200ms"}))
    assert outcome.residue == ()
    assert len(bench.of(FaultStarted)) == len(bench.of(FaultEnded)) == 4
    assert bench.of(FaultHits)[-1].counters == {"stops": 4}


@pytest.mark.slow
def test_two_runs_on_one_thing_the_second_is_refused_by_name(bench: Bench, service: Service) -> None:
    from tests.engine.conftest import Bench as AnotherBench

    async def second(bench: Bench) -> None:
        await bench.until(FaultStarted)
        other = AnotherBench(bench.state)
        with pytest.raises(Conflict, match="a-test"):
            await other._execute(paused(service), None, {})
        assert len(bench.state.all_runs()) == 1, "the refused one left no folder"

    assert bench.execute(paused(service, "1s"), meanwhile=second).exit_status == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"process": {"pid": 1}}, "pid 1"),
        ({"process": {"pid": os.getpid()}}, "Squall itself"),
        ({"process": {"command": "no-such-command"}}, "no process matches"),
        ({"process": {"port": 1}}, "nobody listens"),
        ({"cgroup": "/"}, "root cgroup"),
        ({"cgroup": "/no/such/group"}, "no cgroup"),
    ],
)
def test_a_wrong_target_is_refused_before_anything_is_touched(
    bench: Bench, targets: dict[str, Any], message: str
) -> None:
    kind = "stress.cpu" if "cgroup" in targets else "process.pause"
    spec = {"targets": targets, "duration": "1s", "faults": [{"type": kind, "targets": targets, "duration": "1s"}]}
    with pytest.raises(TargetError, match=message):
        bench.execute(spec)
    assert bench.state.all_runs() == []
    assert bench.events == []


def test_an_http_fault_on_tls_is_refused(bench: Bench) -> None:
    listen = free_port()
    targets = {"route": {"listen": f"127.0.0.1:{listen}", "upstream": "127.0.0.1:9"}}
    fault = {"type": "http.abort", "targets": targets, "duration": "1s"}
    expectation = {"name": "web", "http": {"url": f"https://127.0.0.1:{listen}/"}, "every": "50ms"}
    with pytest.raises(CannotInject, match="has no certificate to read it by"):
        bench.execute({"targets": targets, "duration": "1s", "faults": [fault], "steadyState": [expectation]})
    assert bench.state.all_runs() == []


def test_a_port_in_use_is_a_clear_error_and_nothing_is_left(bench: Bench, service: Service) -> None:
    targets = {"route": {"listen": f"127.0.0.1:{service.port}", "upstream": "127.0.0.1:9"}}
    fault = {"type": "tcp.down", "targets": targets, "duration": "1s"}
    expectation = {"name": "here", "command": "true", "every": "100ms"}
    outcome = bench.execute({"targets": targets, "duration": "1s", "faults": [fault], "steadyState": [expectation]})
    assert outcome.exit_status == 4
    assert f"127.0.0.1:{service.port}" in outcome.reason
    assert bench.of(FaultStarted) == []
    assert bench.state.open_runs() == []


def test_nothing_starts_while_halted_and_halt_ends_what_is_on(bench: Bench, service: Service) -> None:
    async def halt(bench: Bench) -> None:
        await bench.until(FaultStarted)
        bench.state.halt_flag.touch()

    outcome = bench.execute(paused(service, "20s"), meanwhile=halt)
    assert (outcome.verdict, bench.of(AbortTriggered)[0].cause) == ("aborted", "halted")
    with pytest.raises(Halted):
        bench.execute(paused(service))


def test_a_guardian_that_dies_ends_the_run(bench: Bench, service: Service) -> None:
    from squall.kernel import proc

    async def kill(bench: Bench) -> None:
        await bench.until(FaultStarted)
        guardians = [
            pid for pid in proc.children_of(os.getpid()) if "squall.recovery.guardian" in proc.command_line(pid)
        ]
        assert len(guardians) == 1
        os.kill(guardians[0], signal.SIGKILL)

    outcome = bench.execute(paused(service, "20s"), meanwhile=kill)
    assert (outcome.verdict, bench.of(AbortTriggered)[0].cause) == ("aborted", "guardian-lost")
    assert service.state() in "SR"


class SleepyClock:
    """The machine's clocks, and a suspended machine when told."""

    def __init__(self) -> None:
        self.slept_ns = 0
        self.jumped_ns = 0

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.slept_ns

    def wall_ns(self) -> int:
        return time.time_ns() + self.jumped_ns


def test_a_machine_that_was_suspended_makes_the_run_inconclusive(bench: Bench, service: Service) -> None:
    clock = SleepyClock()

    async def suspend(bench: Bench) -> None:
        await bench.until(FaultStarted)
        clock.slept_ns = 3_000_000_000

    outcome = bench.execute(paused(service, "10s"), meanwhile=suspend, clock=clock)
    assert outcome.verdict == "inconclusive"
    assert "suspended for 3s" in outcome.reason
    assert service.state() in "SR"


def test_a_wall_clock_that_jumps_changes_nothing(bench: Bench, service: Service) -> None:
    clock = SleepyClock()

    async def jump(bench: Bench) -> None:
        await bench.until(FaultStarted)
        clock.jumped_ns = -86_400_000_000_000

    assert bench.execute(paused(service, "500ms"), meanwhile=jump, clock=clock).verdict == "passed"


def test_a_full_disk_ends_the_run_and_leaves_nothing(
    bench: Bench, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    from squall.probes.samples import SampleWriter

    async def fill(bench: Bench) -> None:
        await bench.until(FaultStarted)

        def full(_writer: object, _samples: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(SampleWriter, "write", full)

    outcome = bench.execute(paused(service, "10s"), meanwhile=fill)
    assert outcome.verdict != "passed"
    assert "No space left on device" in outcome.reason
    assert service.state() in "SR"
    assert bench.state.open_runs() == []


def test_a_fault_on_the_wrong_kind_of_target_is_wrong_input(bench: Bench, service: Service) -> None:
    targets = {"route": {"listen": "127.0.0.1:1", "upstream": f"127.0.0.1:{service.port}"}}
    with pytest.raises((InputError, ValueError), match=r"process\.pause happens to a process"):
        bench.execute(
            {
                "targets": targets,
                "duration": "1s",
                "faults": [{"type": "process.pause", "targets": targets, "duration": "1s"}],
            }
        )
