"""Whether a group is won, lost or open follows from its members, in every order of their ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from squall_resilience.core.group import GroupSettings, Members
from squall_resilience.errors import SettingsError

CONCURRENCY = 3


class MembersMachine(RuleBasedStateMachine):
    """Against plain lists of names."""

    @initialize(need=st.none() | st.integers(0, 6))
    def begin(self, need: int | None) -> None:
        self.need = need
        self.members = Members(need, CONCURRENCY)
        self.counted: list[str] = []
        self.optional: list[str] = []
        self.waiting: list[str] = []
        self.running: list[str] = []
        self.ok: list[str] = []
        self.failed: list[str] = []
        self.dropped: list[str] = []
        self.closed = False

    @precondition(lambda self: not self.closed)
    @rule(counts=st.booleans())
    def added(self, counts: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        name = f"m{len(self.members)}"
        self.members.add(name, counts=counts)
        (self.counted if counts else self.optional).append(name)
        self.waiting.append(name)

    @rule()
    def one_begins(self) -> None:
        name = self.members.next_to_start()
        if len(self.running) >= CONCURRENCY or not self.waiting:
            assert name is None
        else:
            assert name == self.waiting.pop(0), "in the order in which they were added"
            self.running.append(name)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, CONCURRENCY - 1), ok=st.booleans())
    def one_ends(self, which: int, ok: bool) -> None:  # noqa: FBT001
        name = self.running.pop(which % len(self.running))
        (self.ok if ok else self.failed).append(name)
        self.members.end(name, ok=ok)
        self.members.end(name, ok=not ok)  # a second end is none

    @precondition(lambda self: not self.closed)
    @rule()
    def no_more_are_added(self) -> None:
        self.closed = self.members.closed = True

    @rule()
    def what_is_not_needed_is_dropped(self) -> None:
        wanted = self.need is not None and self.closed and sum(name in self.counted for name in self.ok) >= self.need
        surplus = [name for name in self.counted if wanted and name in self.waiting + self.running]
        assert self.members.drop_surplus() == surplus
        self.dropped += surplus
        self.waiting = [name for name in self.waiting if name not in surplus]
        self.running = [name for name in self.running if name not in surplus]

    @invariant()
    def it_stands_as_its_members_do(self) -> None:
        good = sum(name in self.counted for name in self.ok)
        bad = sum(name in self.counted for name in self.failed)
        pending = self.waiting + self.running
        open_counted = sum(name in self.counted for name in pending)
        if self.need is None:
            lost, enough = bad > 0, open_counted == 0
        else:
            lost, enough = self.closed and good + open_counted < self.need, good >= self.need
        won = self.closed and enough and not any(name in self.optional for name in pending)
        assert self.members.standing == ("lost" if lost else "won" if won else "open")

    def teardown(self) -> None:
        if not hasattr(self, "need"):
            return
        good = sum(name in self.counted for name in self.ok)
        enough = good >= (len(self.counted) if self.need is None else self.need)
        out_of_time = len(self.ok) % 2 == 0
        assert self.members.finish(out_of_time=out_of_time) == ("won" if enough else "lost")
        assert self.members.next_to_start() is None
        for name in self.counted + self.optional:
            if name in self.ok:
                outcome = "ok"
            elif name in self.optional:
                outcome = "defaulted"
            else:
                gone = name in self.dropped or (name not in self.failed and not out_of_time)
                outcome = "cancelled" if gone else "failed"
            assert self.members.outcome(name) == outcome


TestMembers = MembersMachine.TestCase


def begun(need: int | None, concurrency: int, counted: str, optional: str = "") -> Members:
    members = Members(need, concurrency)
    for name in counted + optional:
        members.add(name, counts=name in counted)
    while members.next_to_start() is not None:
        pass
    return members


def test_what_is_not_needed_any_more_makes_room_for_what_is() -> None:
    members = begun(1, 5, "abcd", "efghij")
    members.end("a", ok=True)
    assert members.next_to_start() == "f"
    assert members.drop_surplus() == [], "another one could still be added"
    members.closed = True
    assert members.drop_surplus() == ["b", "c", "d"]
    assert members.drop_surplus() == []
    assert [members.next_to_start() for _ in range(4)] == ["g", "h", "i", None], "e and f run, and three more may"
    assert not members.end("b", ok=True), "it has been dropped"
    assert members.standing == "open"


def test_those_that_wait_are_dropped_too_and_hold_no_room() -> None:
    members = begun(2, 3, "abcdef", "xyz")
    members.closed = True
    members.end("a", ok=True)
    assert members.drop_surplus() == []
    members.end("b", ok=True)
    assert members.drop_surplus() == ["c", "d", "e", "f"]
    assert [members.next_to_start() for _ in range(4)] == ["x", "y", "z", None]
    assert members.tally() == (2, 6)


def test_a_group_without_a_number_drops_nothing_and_one_that_has_ended_nothing_more() -> None:
    everything = begun(None, 3, "abc")
    everything.closed = True
    everything.end("a", ok=True)
    assert everything.drop_surplus() == []
    ended = begun(1, 3, "abc")
    ended.end("a", ok=True)
    assert ended.finish() == "won"
    assert ended.drop_surplus() == []


def test_what_is_under_way_at_the_end_has_failed_only_when_time_was_over() -> None:
    for out_of_time, outcome in [(True, "failed"), (False, "cancelled")]:
        members = begun(None, 2, "abc", "d")
        members.end("a", ok=True)
        members.end("b", ok=False)
        members.finish(out_of_time=out_of_time)
        assert [members.outcome(name) for name in "abcd"] == ["ok", "failed", outcome, "defaulted"]
        assert members.tally() == (1, 3)
    members = begun(None, 2, "a")
    members.finish()
    assert members.outcome("a") == "cancelled"


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_nothing_that_ends_after_the_group_changes_it(need: int, first: int, late: int) -> None:
    members = Members(need, 10)
    for number in range(first + late):
        members.add(f"m{number}", counts=True)
        members.next_to_start()
    for number in range(first):
        members.end(f"m{number}", ok=True)
    stood = members.finish()
    for number in range(first, first + late):
        members.end(f"m{number}", ok=True)
    assert stood == members.finish() == ("won" if first >= need else "lost")


def test_settings_out_of_range_are_told_all_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        GroupSettings(limit=0, concurrency=0, members=0, threads=0)
    assert [each.path for each in raised.value.problems] == ["limit", "concurrency", "members", "threads"]
