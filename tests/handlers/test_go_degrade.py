"""A Go service's handlers begin late by what was asked, in that process alone, and how long everything took is known."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from squall.actions.worker import surviving
from squall.injectors.uprobe import UprobeDegradeInjector
from squall.kernel.bpf import loads
from squall.workers.degrade import BOUNDED, LOOPED
from tests import services, specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Service

pytestmark = [pytest.mark.kernel, specimens.needs_root]

INJECTOR = UprobeDegradeInjector()
BUILDS = {
    "with symbols": (),
    "stripped": services.STRIPPED,
    "position independent, stripped": ("-buildmode=pie", *services.STRIPPED),
}


@pytest.fixture(autouse=True)
def _works_here() -> None:
    for program in (LOOPED, BOUNDED):
        if loads("degrade", (program, "leave")).works:
            return
    pytest.skip(f"this kernel takes no program for uprobes: {loads('degrade', (BOUNDED, 'leave')).reason}")


@pytest.fixture
def go() -> Iterator[Service]:
    with services.go_service() as found:
        yield found


@pytest.mark.parametrize("flags", BUILDS.values(), ids=BUILDS)
def test_each_request_is_late_by_what_was_asked_and_no_longer_afterwards(flags: tuple[str, ...]) -> None:
    with services.go_service(flags=flags) as go, go.client() as before, go.client() as client:
        assert [before.ask() for _ in range(100)] == [200] * 100
        with services.injected(services.planned(INJECTOR, "http.degrade", go.target, delay="3ms")) as fault:
            assert [client.ask() for _ in range(100)] == [200] * 100
            counts = fault.until_counted("delayed", 100)
            assert (
                counts["delayed"] < 140
            )  # one that Go preempts at its entry begins anew; soon it is known as the same
            assert min(client.took_s) >= 0.003
            specimens.wait_for(lambda: "injected_p50_us" in fault.counts(), "times are published")
            assert 3000 <= fault.counts()["injected_p50_us"] <= fault.counts()["injected_max_us"]
        again = client.took_s.copy()
        client.took_s.clear()
        assert [client.ask() for _ in range(100)] == [200] * 100
        assert client.median_s() < sorted(again)[50]
        assert min(client.took_s) < min(before.took_s) + 0.003


def test_how_long_the_handler_took_is_measured_where_it_returns(go: Service) -> None:
    with (
        services.injected(services.planned(INJECTOR, "http.degrade", go.target, delay="2ms")) as fault,
        go.client() as client,
    ):
        assert client.ask() == 200

        def measured() -> bool:
            client.ask()
            return "handled_p50_us" in fault.counts()

        specimens.wait_for(measured, "a handler was measured")
        counts = fault.counts()
        assert 2000 <= counts["handled_p50_us"] <= counts["handled_max_us"]
        assert counts["between_max_us"] >= 2000
        assert max(client.took_s) * 1e6 >= counts["handled_p50_us"]


def test_the_share_is_drawn_from_the_seed(go: Service) -> None:
    plan = services.planned(INJECTOR, "http.degrade", go.target, delay="100us", percent="30%")
    with services.injected(plan) as fault:
        assert go.asks(1000) == [200] * 1000
        specimens.wait_for(
            lambda: sum(fault.counts().get(name, 0) for name in ("delayed", "missed")) >= 1000, "all are counted"
        )
        counts = fault.counts()
    assert 1000 <= counts["delayed"] + counts["missed"] < 1050
    assert 240 < counts["delayed"] < 360


def test_it_is_adjusted_while_it_is_on(go: Service) -> None:
    late, later = (services.planned(INJECTOR, "http.degrade", go.target, delay=delay) for delay in ("1us", "4ms"))
    with services.injected(late) as fault, go.client() as client:
        assert client.ask() == 200
        fault.become(later)

        def later_now() -> bool:
            client.took_s.clear()
            return client.ask() == 200 and client.took_s[0] >= 0.004

        specimens.wait_for(later_now, "it is later")


def floor_s(service: Service) -> float:
    """What its quickest request takes, which no wait may be mistaken for."""
    with service.client() as client:
        assert [client.ask() for _ in range(30)] == [200] * 30
        return min(client.took_s)


def test_another_process_that_runs_the_same_program_is_not_late(go: Service) -> None:
    with services.go_service() as other:
        quick = floor_s(other)
        with services.injected(services.planned(INJECTOR, "http.degrade", go.target, delay="5ms")) as fault:
            assert floor_s(other) < quick + 0.005
            assert fault.counts()["delayed"] == 0


def test_a_killed_worker_leaves_nothing(go: Service) -> None:
    quick = floor_s(go)
    plan = services.planned(INJECTOR, "http.degrade", go.target, delay="5ms")
    with services.injected(plan) as fault:
        assert floor_s(go) >= 0.005
        (worker,) = surviving(plan.actions[0].token)  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
        specimens.wait_for(lambda: not surviving(plan.actions[0].token), "the worker is gone")  # type: ignore[attr-defined]
        assert not fault.actions[0].in_force()  # type: ignore[attr-defined]
        assert floor_s(go) < quick + 0.005


def test_a_stopped_worker_lets_everything_pass_within_a_second(go: Service) -> None:
    quick = floor_s(go)
    plan = services.planned(INJECTOR, "http.degrade", go.target, delay="5ms")
    with services.injected(plan):
        (worker,) = surviving(plan.actions[0].token)  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            specimens.wait_for(lambda: floor_s(go) < quick + 0.005, "calls pass", 5)
        finally:
            os.kill(worker.pid, signal.SIGCONT)


def test_a_target_that_ends_in_the_middle_is_no_trouble(go: Service) -> None:
    with services.injected(services.planned(INJECTOR, "http.degrade", go.target, delay="1ms")) as fault:
        assert go.asks(5) == [200] * 5
        fault.until_counted("delayed", 5)
        go.popen.kill()
        go.popen.wait()
        assert fault.actions[0].in_force()  # type: ignore[attr-defined]


def test_what_cannot_be_honoured_is_refused_with_the_reason(go: Service) -> None:
    refused = services.refused
    assert "burns a CPU" in refused(INJECTOR, "http.degrade", go.target, delay="50ms")
    assert "no function main.nothing" in refused(
        INJECTOR, "http.degrade", go.target, delay="1ms", function="main.nothing"
    )
    assert "main.(*shop).order" in refused(INJECTOR, "http.degrade", go.target, delay="1ms", function="main.order")
    assert "is for Python" in refused(INJECTOR, "http.degrade", go.target, delay="1ms", function="app:handler")
    with specimens.sleeper() as other:
        assert "no Go program" in refused(INJECTOR, "http.degrade", services.target_of(other.pid), delay="1ms")


def test_any_function_of_the_service_can_be_named(go: Service) -> None:
    plan = services.planned(INJECTOR, "http.degrade", go.target, delay="2ms", function="main.(*shop).order")
    with services.injected(plan) as fault, go.client() as client:
        assert [client.ask() for _ in range(20)] == [200] * 20
        assert 20 <= fault.until_counted("delayed", 20)["delayed"] < 30
        assert min(client.took_s) >= 0.002


def test_the_wait_without_the_kernels_loop_is_as_long(go: Service) -> None:
    """What 5.10 to 5.16 do, tried on this kernel."""
    plan = services.planned(INJECTOR, "http.degrade", go.target, delay="500us")
    plan.actions[0].config["program"] = BOUNDED  # type: ignore[attr-defined]
    with services.injected(plan) as fault, go.client() as client:
        assert [client.ask() for _ in range(50)] == [200] * 50
        counts = fault.until_counted("delayed", 50)
        assert counts["cut_short"] == 0
        assert min(client.took_s) >= 0.0005
