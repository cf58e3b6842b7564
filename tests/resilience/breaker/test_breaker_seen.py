"""What a breaker tells and shows: events, numbers, settings that change while it works."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from squall_resilience import BreakerSettings, CircuitBreaker
from squall_resilience.errors import BreakerOpen, SettingsError
from squall_resilience.events import Event, RejectedCall, StateChanged, everyone
from squall_resilience.metrics import MetricNameClash, Registry
from tests.resilience.breaker.clockwork import Clocked, PlannedError


def test_a_change_is_an_event_with_its_cause_and_figures() -> None:
    it = Clocked(failures_in_a_row=None, minimum_calls=10)
    it.traffic(40, failing=0.5, took=0.1)
    (event,) = it.events
    assert isinstance(event, StateChanged)
    assert (event.kind, event.dependency, event.old, event.new) == ("breaker", "inventory", "closed", "open")
    assert event.cause == "error_rate"
    assert event.figures == {
        "error_rate": 0.5,
        "periods_in_a_row": 3.0,
        "failures_in_a_row": 0.0,
        "latency": pytest.approx(0.1, rel=0.05),
    }


def test_a_rejection_is_an_event() -> None:
    it = Clocked()
    for forced in (it.breaker.force_open, it.breaker.release):
        forced()
        it.events.clear()
        for _ in range(2):
            with pytest.raises(BreakerOpen):
                it.call(0.0, BreakerOpen("of another one"))
        causes = [each.cause for each in it.events if isinstance(each, RejectedCall)]
        assert causes == (["forced_open"] * 2 if forced == it.breaker.force_open else ["half_open"])


def test_the_process_is_told_too() -> None:
    told: list[Event] = []
    everyone.add(told.append)
    try:
        it = Clocked(failures_in_a_row=1)
        it.fail()
    finally:
        everyone.remove(told.append)
    assert told == it.events != []


def test_a_listener_that_fails_does_not_reach_the_call(caplog: pytest.LogCaptureFixture) -> None:
    it = Clocked(failures_in_a_row=1)

    def broken(event: Event) -> None:
        raise ValueError(event)

    it.breaker.listeners.add(broken)
    with caplog.at_level(logging.ERROR, "squall_resilience"), pytest.raises(PlannedError):
        it.call(0.0, PlannedError())
    assert "failed on StateChanged" in caplog.text
    assert it.breaker.state == "open"


def test_a_listener_may_use_the_breaker_and_events_stay_in_order() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=1)
    told: list[str] = []

    def meddling(event: Event) -> None:
        if isinstance(event, StateChanged):
            told.append(f"{event.new} begins")
            if event.new == "open":
                with pytest.raises(BreakerOpen):
                    it.call(0.0, "good")
                it.wait(10)
                it.succeed()
            told.append(f"{event.new} told")

    it.breaker.listeners.add(meddling)
    it.fail()
    assert told == [f"{state} {step}" for state in ("open", "half_open", "closed") for step in ("begins", "told")]


def test_an_interrupt_in_a_listener_goes_on_and_nothing_is_stuck() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=1)

    def interrupted(event: Event) -> None:
        it.breaker.listeners.remove(interrupted)
        raise KeyboardInterrupt(event)

    it.breaker.listeners.add(interrupted)
    with pytest.raises(KeyboardInterrupt):
        it.fail()
    it.wait(10)
    it.succeed()
    assert [new for _, new, _ in it.changes] == ["open", "half_open", "closed"]


def test_its_numbers() -> None:
    it = Clocked(failures_in_a_row=2, wait=10, minimum_calls=4)
    it.succeed(2, took=0.1)
    it.fail(2, took=0.1)
    with pytest.raises(BreakerOpen):
        it.call(0.0, "good")
    registry = Registry()
    registry.add(it.breaker)
    seen = [line for line in registry.render().splitlines() if not line.startswith("#")]
    p95 = next(line for line in seen if line.startswith("resilience_breaker_latency_seconds"))
    assert float(p95.split()[-1]) == pytest.approx(0.1, rel=0.05)
    seen.remove(p95)
    assert seen == [
        'resilience_breaker_calls_total{dependency="inventory",outcome="success"} 2',
        'resilience_breaker_calls_total{dependency="inventory",outcome="failure"} 2',
        'resilience_breaker_calls_total{dependency="inventory",outcome="rejected"} 1',
        'resilience_breaker_error_rate{dependency="inventory"} 0.5',
        'resilience_breaker_state{dependency="inventory",state="closed"} 0',
        'resilience_breaker_state{dependency="inventory",state="open"} 1',
        'resilience_breaker_state{dependency="inventory",state="half_open"} 0',
        'resilience_breaker_state{dependency="inventory",state="forced_open"} 0',
        'resilience_breaker_state{dependency="inventory",state="forced_closed"} 0',
        'resilience_breaker_transitions_total{dependency="inventory",from="closed",to="open",cause="failures_in_a_row"} 1',
    ]


def test_a_scrape_sees_the_wait_over() -> None:
    it = Clocked(failures_in_a_row=1, wait=10)
    it.fail()
    it.wait(10)
    states = {dict(each.labels)["state"]: each.value for each in it.breaker.samples() if each.name.endswith("_state")}
    assert states == {"closed": 0, "open": 0, "half_open": 1, "forced_open": 0, "forced_closed": 0}


def test_two_breakers_cannot_count_under_one_name() -> None:
    registry = Registry()
    first = CircuitBreaker("inventory", registry=registry)
    with pytest.raises(MetricNameClash, match="breaker named 'inventory'"):
        CircuitBreaker("inventory", registry=registry)
    assert registry.find("breaker", "inventory") is first


def test_forced_states_hold_until_released() -> None:
    it = Clocked(failures_in_a_row=1, wait=10, trials=1)
    it.breaker.force_closed()
    it.fail(50)
    reading = it.breaker.read()
    assert (reading.state, reading.forced, reading.failures) == ("forced_closed", True, 50)
    it.breaker.release()
    assert it.breaker.read().failures_in_a_row == 0
    it.breaker.force_open()
    it.wait(100)
    with pytest.raises(BreakerOpen, match="forced open") as caught:
        it.succeed()
    assert caught.value.retry_after is None
    reading = it.breaker.read()
    assert (reading.state, reading.forced, reading.since) == ("forced_open", True, 100)
    it.breaker.release()
    it.breaker.release()
    it.succeed()
    assert it.changes == [
        ("closed", "forced_closed", "forced"),
        ("forced_closed", "closed", "released"),
        ("closed", "forced_open", "forced"),
        ("forced_open", "half_open", "released"),
        ("half_open", "closed", "trials_succeeded"),
    ]


def test_settings_force_too_and_an_operator_comes_before_them() -> None:
    it = Clocked(forced="open")
    assert it.breaker.state == "forced_open"
    it.breaker.force_closed()
    assert it.breaker.state == "forced_closed"
    it.breaker.release()
    assert it.breaker.state == "forced_open"
    it.breaker.configure(replace(it.breaker.settings, forced="closed"))
    assert it.breaker.state == "forced_closed"
    it.breaker.configure(replace(it.breaker.settings, forced="none"))
    assert it.breaker.state == "closed"
    assert [cause for _, _, cause in it.changes] == ["configured", "forced", "released", "configured", "configured"]


def test_settings_change_live_and_nothing_is_forgotten() -> None:
    it = Clocked(failures_in_a_row=10, latency=5.0)
    it.fail(4, took=0.2)
    it.breaker.configure(replace(it.breaker.settings, failures_in_a_row=5))
    assert it.breaker.settings.failures_in_a_row == 5
    assert it.breaker.read().latency == pytest.approx(0.2, rel=0.05)
    it.fail()
    assert it.changes == [("closed", "open", "failures_in_a_row")]
    it.breaker.configure(replace(it.breaker.settings, wait=100))
    assert it.breaker.read().wait_left == 100
    it.wait(40)
    it.breaker.configure(replace(it.breaker.settings, wait=40))
    assert it.breaker.state == "half_open"


def test_a_limit_that_is_lowered_is_held_against_what_was_counted() -> None:
    it = Clocked(latency=5.0, failures_in_a_row=None)
    it.traffic(20, rate=2, took=0.4)
    it.breaker.configure(replace(it.breaker.settings, latency=0.3))
    assert it.breaker.state == "open"


def test_periods_may_become_shorter() -> None:
    it = Clocked(failures_in_a_row=None, period=1000, minimum_calls=5)
    it.traffic(10, failing=1.0)
    it.breaker.configure(replace(it.breaker.settings, period=2))
    assert it.traffic(20, failing=1.0) <= 8


def test_fewer_trials_may_be_asked_for_while_half_open() -> None:
    it = Clocked(trials=10, trial_share=1.0)
    it.breaker.force_open()
    it.breaker.release()
    it.succeed(3)
    it.breaker.configure(replace(it.breaker.settings, trials=3))
    assert it.breaker.state == "closed"


def test_all_wrong_settings_are_told_at_once() -> None:
    settings, problems = BreakerSettings.read(
        {"period": "0s", "error_rate": "140%", "trip": "some", "perids": 3, "wait": True},
        "dependencies.inventory.breaker",
    )
    assert settings is None
    assert {each.path.rpartition(".")[2] for each in problems} == {"period", "error_rate", "trip", "perids", "wait"}
    assert all(each.path.startswith("dependencies.inventory.breaker.") for each in problems)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"error_rate": None, "failures_in_a_row": None},
            "trip: 'any' is not possible without error_rate, latency or failures_in_a_row",
        ),
        ({"wait": 20, "wait_max": 10}, "wait_max: 10s is not at least `wait`, 20s"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        BreakerSettings(**given)  # type: ignore[arg-type]
    assert [str(each) for each in caught.value.problems] == [said]


def test_settings_at_the_edge_of_a_contradiction() -> None:
    assert BreakerSettings(error_rate=None, failures_in_a_row=None, latency=1.0).latency == 1.0
    assert BreakerSettings(wait=20, wait_max=20).wait_max == 20


def test_settings_from_a_file() -> None:
    settings, problems = BreakerSettings.read(
        {"error_rate": "30%", "period": "5s", "failures_in_a_row": None, "latency": "250ms", "forced": "open"}
    )
    assert problems == []
    assert settings == BreakerSettings(error_rate=0.3, period=5.0, failures_in_a_row=None, latency=0.25, forced="open")
