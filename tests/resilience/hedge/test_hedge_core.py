"""When a second copy is sent follows from the latencies seen, and the first answer counts in every order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from squall_resilience.core.hedge import HedgeSettings, Latencies, Race
from squall_resilience.errors import SettingsError


@given(st.lists(st.floats(-1, 5), max_size=600), st.floats(0.5, 0.999))
def test_the_delay_is_the_quantile_of_the_last_latencies_within_its_bounds(seen: list[float], quantile: float) -> None:
    rules, latencies = HedgeSettings(quantile=quantile, delay_min=0.01, delay_max=2.0), Latencies()
    for each in seen:
        latencies.add(each)
    delay = latencies.delay(rules)
    last = sorted(max(0.0, each) for each in seen[-256:])
    if len(last) < 20:
        assert delay == 2.0
    else:
        assert delay == min(max(last[int(quantile * len(last))], 0.01), 2.0)


def test_the_quantile_follows_new_latencies_and_settings() -> None:
    rules, latencies = HedgeSettings(), Latencies()
    for _ in range(256):
        latencies.add(0.1)
    assert latencies.delay(rules) == 0.1
    for _ in range(30):
        latencies.add(0.5)
    assert latencies.delay(rules) == 0.5
    assert latencies.delay(HedgeSettings(quantile=0.5)) == 0.1
    assert latencies.delay(HedgeSettings(delay=0.07)) == 0.07


@pytest.mark.parametrize("rising", [True, False])
def test_the_oldest_latency_gives_way_to_the_newest(rising: bool) -> None:  # noqa: FBT001 - pytest gives it
    seen: list[float] = []
    latencies = Latencies()
    for number in range(600):
        seen.append(float(number if rising else 600 - number))
        latencies.add(seen[-1])
        last = sorted(seen[-256:])
        for quantile in (0.5, 0.999):
            rules = HedgeSettings(quantile=quantile, delay_min=0, delay_max=1000, calls_min=1)
            assert latencies.delay(rules) == last[int(quantile * len(last))]


def test_the_quantile_is_worked_out_again_after_sixteen_latencies_and_not_before() -> None:
    rules, latencies = HedgeSettings(quantile=0.999, delay_min=0, delay_max=1000, calls_min=1), Latencies()
    latencies.add(1)
    assert latencies.delay(rules) == 1
    for turn in range(3):
        for number in range(15):
            latencies.add(2 + turn)
            assert latencies.delay(rules) == 1 + turn, number
        latencies.add(2 + turn)
        assert latencies.delay(rules) == 2 + turn


def test_a_race_in_which_both_copies_fail_is_over() -> None:
    race: Race[str] = Race()
    assert race.send_second()
    race.failed("first", LookupError())
    assert not race.over
    race.failed("second", LookupError())
    assert race.over
    assert race.winner is None


def test_only_the_first_answer_is_taken() -> None:
    race: Race[str] = Race()
    assert race.send_second()
    assert race.answered("second", "two")
    assert not race.answered("first", "one")
    assert (race.winner, race.result, race.over) == ("second", "two", True)
    assert not race.send_second()


class RaceMachine(RuleBasedStateMachine):
    """Against the list of what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.race: Race[str] = Race()
        self.happened: list[tuple[str, str]] = []
        self.second_sent = False

    def ended(self, copy: str) -> bool:
        return any(each[1] == copy for each in self.happened)

    @rule(answers=st.booleans())
    def the_first_ends(self, answers: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        self.end("first", answers)

    @rule(answers=st.booleans())
    def the_second_ends(self, answers: bool) -> None:  # noqa: FBT001
        if self.second_sent:
            self.end("second", answers)

    def end(self, copy: str, answers: bool) -> None:  # noqa: FBT001
        if self.ended(copy):
            return
        self.happened.append(("answer" if answers else "failure", copy))
        if answers:
            self.race.answered(copy, copy)  # type: ignore[arg-type]
        else:
            self.race.failed(copy, LookupError(copy))  # type: ignore[arg-type]

    @rule()
    def the_delay_is_over(self) -> None:
        over = self.race.over
        sent = self.race.send_second()
        assert sent == (not over and not self.second_sent)
        self.second_sent |= sent

    @invariant()
    def the_first_answer_counts(self) -> None:
        answers = [copy for what, copy in self.happened if what == "answer"]
        assert self.race.winner == (answers[0] if answers else None)
        under_way = {"first", "second"} if self.second_sent else {"first"}
        assert self.race.over == (bool(answers) or all(self.ended(each) for each in under_way))


TestRace = RaceMachine.TestCase


def test_settings_out_of_range_are_told_all_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        HedgeSettings(delay=-1, quantile=0.2, calls_min=0, threads=1)
    assert [each.path for each in raised.value.problems] == ["delay", "quantile", "calls_min", "threads"]
    assert HedgeSettings(delay_min=1, delay_max=1).delay_max == 1
    with pytest.raises(SettingsError, match="delay_min: 2 s is not a duration up to `delay_max`, 1 s"):
        HedgeSettings(delay_min=2)
