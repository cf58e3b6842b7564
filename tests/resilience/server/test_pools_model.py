"""The pools' core against a naive model, with an injected clock; and its shedding by pressure."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from squall_resilience.core.pools import Place, Pools, Turn
from squall_resilience.server.settings import PoolSettings, PoolsSettings

NAMES = ("high", "default", "bulk")
sizes = st.fixed_dictionaries({name: st.tuples(st.integers(1, 3), st.integers(0, 3)) for name in NAMES})
totals = st.none() | st.integers(1, 6)
SLA = {"high": 1.0, "default": 5.0, "bulk": 20.0}


def settings_of(given: dict[str, tuple[int, int]], total: int | None) -> PoolsSettings:
    pools = {name: PoolSettings(workers, SLA[name], waiting) for name in NAMES for workers, waiting in [given[name]]}
    return PoolsSettings(pools, total=total, shedding=False)


class PoolsMachine(RuleBasedStateMachine):
    """The model holds for each pool who runs and who waits, and does what the rules of the house say."""

    @initialize(given=sizes, total=totals)
    def make(self, given: dict[str, tuple[int, int]], total: int | None) -> None:
        self.sizes, self.total, self.now, self.number = given, total, 100.0, 0
        self.pools: Pools[int] = Pools(settings_of(given, total))
        self.running: dict[str, list[Place[int]]] = {name: [] for name in NAMES}
        self.line: dict[str, list[Place[int]]] = {name: [] for name in NAMES}
        self.counted = {name: {"served": 0, "late": 0, "shed": 0} for name in NAMES}
        self.over: list[Place[int]] = []

    def may_start(self, name: str) -> bool:
        busy = sum(len(each) for each in self.running.values())
        return len(self.running[name]) < self.sizes[name][0] and (self.total is None or busy < self.total)

    def fill(self, turn: Turn[int]) -> None:
        started, shed = [], []
        for name in NAMES:
            while self.line[name] and self.may_start(name):
                first = self.line[name].pop(0)
                if self.now >= first.arrived + SLA[name]:
                    shed.append(first)
                    self.counted[name]["shed"] += 1
                else:
                    started.append(first)
                    self.running[name].append(first)
        self.over += shed
        assert (turn.started, turn.shed) == (started, shed)

    @rule(name=st.sampled_from([*NAMES, "unheard of", None]))
    def comes(self, name: str | None) -> None:
        self.number += 1
        place = self.pools.arrive(name, self.number, self.now)
        pool = name if name in NAMES else "default"
        assert place.lane.name == pool
        if self.may_start(pool) and not self.line[pool]:
            expected, into = "started", self.running[pool]
        elif len(self.line[pool]) < self.sizes[pool][1]:
            expected, into = "waiting", self.line[pool]
        else:
            expected, into = "shed", self.over
            self.counted[pool]["shed"] += 1
            assert place.retry_after >= SLA[pool]
        assert place.state == expected
        into.append(place)

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([each for each in NAMES if self.running[each]]))
        place = data.draw(st.sampled_from(self.running[name]))
        self.running[name].remove(place)
        self.over.append(place)
        self.counted[name]["late" if self.now - place.arrived > SLA[name] else "served"] += 1
        self.fill(self.pools.finish(place, self.now))

    @precondition(lambda self: any(self.running.values()) or any(self.line.values()))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        held = [(each, name) for each in (self.running, self.line) for name in NAMES if each[name]]
        into, name = data.draw(st.sampled_from(held))
        place = data.draw(st.sampled_from(into[name]))
        into[name].remove(place)
        self.over.append(place)
        turn = self.pools.leave(place, self.now)
        if into is self.running:
            self.fill(turn)
        else:
            assert turn == Turn()

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def nothing_happens_twice(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.over))
        before = place.state
        assert self.pools.finish(place, self.now) == self.pools.leave(place, self.now) == Turn()
        assert self.pools.turn_back(place, self.now) == Turn()
        assert not self.pools.give_up(place)
        assert place.state == before

    @rule(passes=st.floats(0, 10))
    def time_passes(self, passes: float) -> None:
        self.now += passes

    @rule()
    def who_waited_too_long_is_shed(self) -> None:
        expected = [place for name in NAMES for place in self.line[name] if self.now >= place.arrived + SLA[name]]
        assert self.pools.overdue(self.now).shed == expected
        for place in expected:
            name = place.lane.name
            self.line[name].remove(place)
            self.counted[name]["shed"] += 1
            self.over.append(place)

    @rule(given=sizes, total=totals)
    def resized(self, given: dict[str, tuple[int, int]], total: int | None) -> None:
        self.sizes, self.total = given, total
        self.fill(self.pools.configure(settings_of(given, total), self.now))

    @invariant()
    def agrees(self) -> None:
        for name, lane in self.pools.lanes.items():
            assert lane.busy == len(self.running[name])
            assert list(lane.waiting.values()) == self.line[name]
            assert {"served": lane.served, "late": lane.late, "shed": lane.shed} == self.counted[name]
        waiting = [max(0.0, place.expires - self.now) for line in self.line.values() for place in line]
        assert self.pools.next_expiry(self.now) == (pytest.approx(min(waiting)) if waiting else None)


PoolsMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestPools = PoolsMachine.TestCase


class TestPressure:
    """While the higher pools wait too long, lower ones stay out, the lowest first."""

    @staticmethod
    def pools(*names: str) -> Pools[int]:
        given = {name: PoolSettings(10, 1.0, 1000) for name in names}
        return Pools(PoolsSettings(given, default=names[-1], window=1.0))

    @staticmethod
    def second(pools: Pools[int], now: float, *, strained: bool) -> None:
        """One second in which all workers of the highest pool are used, and some wait for them or do not."""
        places = [pools.arrive("high", 0, now) for _ in range(20 if strained else 10)]
        for place in places:
            pools.finish(place, now + 0.6)

    def shares(self, pools: Pools[int], now: float, *names: str) -> list[float]:
        shed = []
        for name in names:
            places = [pools.arrive(name, 0, now) for _ in range(8)]
            shed.append(sum(place.cause == "pressure" for place in places) / 8)
            for place in places:
                pools.leave(place, now)
        return shed

    def test_it_rises_while_the_highest_waits_and_falls_when_it_does_not(self) -> None:
        pools, now = self.pools("high", "middle", "low"), 0.0
        seen = []
        for strained in [True] * 8 + [False] * 60:
            self.second(pools, now, strained=strained)
            now += 1.0
            seen.append(self.shares(pools, now, "high", "middle", "low"))
        assert seen[0] == [0.0, 0.0, 0.25]
        assert seen[3] == [0.0, 0.0, 1.0]
        assert seen[5] == [0.0, 0.5, 1.0]
        assert seen[7] == [0.0, 1.0, 1.0]
        assert seen[-1] == [0.0, 0.0, 0.0]
        assert all(high == 0 and middle <= low for high, middle, low in seen)

    def test_a_pause_is_time_without_strain(self) -> None:
        pools = self.pools("high", "low")
        for now in range(4):
            self.second(pools, float(now), strained=True)
        pools.arrive("high", 0, 4.0)
        assert pools.pressure == 1.0
        pools.arrive("high", 0, 100.0)
        assert pools.pressure == 0.0

    def test_what_the_lowest_pool_waits_raises_nothing(self) -> None:
        pools = self.pools("high", "low")
        for number in range(50):
            place = pools.arrive("low", 0, number / 10)
            assert (place.state, pools.give_up(place)) == ("started" if number < 10 else "waiting", number >= 10)
        assert pools.pressure == 0.0

    def test_switched_off_it_is_gone_at_once(self) -> None:
        pools = self.pools("high", "low")
        for now in range(4):
            self.second(pools, float(now), strained=True)
        pools.arrive("high", 0, 4.0)
        pools.configure(PoolsSettings(dict(pools.settings.pools), default="low", shedding=False), 4.0)
        assert pools.pressure == 0.0


@pytest.mark.parametrize("jump", [-1e6, -3.0, 1e6])
def test_a_clock_that_jumps_leaves_nobody_stuck(jump: float) -> None:
    pools: Pools[str] = Pools(PoolsSettings({"default": PoolSettings(1, 1.0, 5)}))
    now = 2e6
    runs, waits = pools.arrive(None, "runs", now), pools.arrive(None, "waits", now)
    now += jump
    assert 0 <= (pools.next_expiry(now) or 0.0) <= 1.0
    pools.overdue(now)
    assert waits.state == ("waiting" if jump < 0 else "shed")
    assert pools.overdue(now + 1.0).shed == ([waits] if jump < 0 else [])
    pools.finish(runs, now)
    assert pools.arrive(None, "next", now).state == "started"
    assert pools.lanes["default"].running_time >= 0


def test_pools_can_change_places() -> None:
    pools: Pools[int] = Pools(settings_of(dict.fromkeys(NAMES, (1, 1)), 1))
    pools.arrive("bulk", 0, 0.0)
    waits = [pools.arrive(name, 0, 0.0) for name in NAMES]
    turned = {name: pools.settings.pools[name] for name in reversed(NAMES)}
    pools.configure(PoolsSettings(turned, total=2), 0.0)
    assert [each.state for each in waits] == ["waiting", "started", "waiting"]  # bulk has no second worker


def test_settings_can_be_pickled() -> None:
    given = PoolsSettings(total=7)
    assert pickle.loads(pickle.dumps(given)) == given  # noqa: S301 - its own
