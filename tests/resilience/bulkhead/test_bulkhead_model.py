"""The slots against a naive model: who holds one, who waits, in which order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from squall_resilience.core.bulkhead import Slots


class SlotsMachine(RuleBasedStateMachine):
    """The model keeps two lists, and does after each step what a person with a clipboard would do."""

    @initialize(limit=st.integers(1, 4), room=st.integers(0, 4))
    def make(self, limit: int, room: int) -> None:
        self.slots: Slots[int] = Slots(limit, room)
        self.limit, self.room = limit, room
        self.holders: dict[int, int] = {}
        self.line: list[int] = []
        self.number = 0

    def admit(self, given: list[int]) -> None:
        expected = []
        while self.line and len(self.holders) < self.limit:
            first = self.line.pop(0)
            self.holders[first] = self.slots.generation
            expected.append(first)
        assert given == expected

    @rule()
    def comes(self) -> None:
        self.number += 1
        token = self.slots.enter()
        assert bool(token) == (len(self.holders) < self.limit and not self.line)
        if token:
            self.holders[self.number] = token
        else:
            stands = self.slots.queue(self.number)
            assert stands == (len(self.line) < self.room)
            if stands:
                self.line.append(self.number)
            self.admit(self.slots.fill())

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(self.holders)))
        needed = self.slots.leave(self.holders.pop(who))
        assert needed == bool(self.line)
        self.admit(self.slots.fill() if needed else [])

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.line))
        assert self.slots.withdraw(who)
        self.line.remove(who)
        assert not self.slots.withdraw(who)

    @precondition(lambda self: self.holders)
    @rule()
    def gives_up_too_late(self) -> None:
        assert not self.slots.withdraw(max(self.holders))

    @rule(limit=st.integers(1, 6), room=st.integers(0, 6))
    def resized(self, limit: int, room: int) -> None:
        self.limit, self.room = limit, room
        self.admit(self.slots.resize(limit, room))

    @rule()
    def forks(self) -> None:
        old = list(self.holders.values())
        self.slots.forget()
        self.holders.clear()
        self.line.clear()
        for token in old:  # what the parent's threads hold cannot be given back here
            assert not self.slots.leave(token)

    @invariant()
    def agrees(self) -> None:
        assert self.slots.in_use == len(self.holders)
        assert list(self.slots.waiting) == self.line
        assert not (self.line and len(self.holders) < self.limit)


SlotsMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSlots = SlotsMachine.TestCase
