"""Calls made at once degrade together: enough of them, or a default, or a failure that says whose."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from squall_resilience import deadline
from squall_resilience.core.group import GroupSettings
from squall_resilience.errors import BulkheadFull, DeadlineExceeded, GroupFailed
from squall_resilience.events import Event, FellBack
from squall_resilience.group import Group
from squall_resilience.metrics import Registry
from squall_resilience.substitutes import staleness
from tests.resilience.worlds import World, both

SECONDS_MAX = 30


def group_of(rules: GroupSettings | None = None, **given: Any) -> Group:
    return Group("page", rules or GroupSettings(limit=2), **{"registry": None, **given})


class Parts:
    """Awaited members that write down what becomes of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun: dict[str, float] = {}
        self.cancelled: list[str] = []
        self.running = self.most = 0

    async def part(self, name: str, seconds: float, *, fails: bool = False) -> str:
        self.begun[name] = round(self.world.clock(), 6)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.world.sleep(seconds)
        except self.world.cancelled:
            self.cancelled.append(name)
            raise
        finally:
            self.running -= 1
        if fails:
            raise LookupError(name)
        return name.upper()


@both
def test_all_that_count_succeed_and_all_run_at_once(world: World) -> None:
    async def main() -> tuple[str, str, float]:
        parts, group = Parts(world), group_of(clock=world.clock)
        async with group.awaited() as calls:
            first = calls.add("first", parts.part, "first", 1)
            second = calls.add("second", parts.part, "second", seconds=1.5)
        assert first.ok
        assert second.ok
        assert group.members == {"ok": 2, "defaulted": 0, "failed": 0}
        return first.value, second.value, world.clock()

    assert world.run(main) == ("FIRST", "SECOND", pytest.approx(1.5))


@both
def test_an_optional_member_that_fails_or_is_too_slow_has_its_default_and_it_is_noticed(world: World) -> None:
    told: list[Event] = []

    async def main() -> tuple[list[object], list[str], float, list[str]]:
        parts, group = Parts(world), group_of(clock=world.clock, listeners=[told.append])
        with staleness() as seen:
            async with group.awaited() as calls:
                price = calls.add("price", parts.part, "price", 0.5)
                reviews = calls.optional("reviews", [], parts.part, "reviews", 0.1, fails=True)
                similar = calls.optional("similar", None, parts.part, "similar", 60)
                stock = calls.optional("stock", "?", parts.part, "stock", 1)
        assert isinstance(reviews.error, LookupError)
        assert isinstance(similar.error, DeadlineExceeded)
        assert group.members == {"ok": 2, "defaulted": 2, "failed": 0}
        values = [price.value, reviews.value, similar.value, stock.value]
        return values, parts.cancelled, world.clock(), [each.error for each in seen.answers]

    values, cancelled, at, noticed = world.run(main)
    assert (values, cancelled, at) == (["PRICE", [], None, "STOCK"], ["similar"], pytest.approx(2))
    assert noticed[0] == "reviews: LookupError: reviews"
    assert [type(each) for each in told] == [FellBack, FellBack]


@both
def test_when_a_member_that_counts_fails_the_rest_is_cancelled_and_each_error_is_there(world: World) -> None:
    async def main() -> tuple[GroupFailed, list[str], float, Group]:
        parts, group = Parts(world), group_of(clock=world.clock)

        async def page() -> None:
            async with group.awaited() as calls:
                calls.add("slow", parts.part, "slow", 60)
                calls.add("broken", parts.part, "broken", 0.5, fails=True)
                calls.optional("extra", 0, parts.part, "extra", 60)

        with pytest.raises(GroupFailed) as raised:
            await page()
        return raised.value, parts.cancelled, world.clock(), group

    error, cancelled, at, group = world.run(main)
    assert (sorted(cancelled), at) == (["extra", "slow"], pytest.approx(0.5))
    assert isinstance(error.errors["broken"], LookupError)
    assert list(error.errors) == ["broken"], "what was only not needed any more has not failed"
    assert "page: 0 of 2 members that count succeeded, 2 needed" in str(error)
    assert "broken: LookupError: broken" in str(error)
    assert group.ended == {"won": 0, "lost": 1}


@both
def test_n_of_m_are_enough_and_the_others_are_cancelled(world: World) -> None:
    async def main() -> tuple[list[str], list[str], float, dict[str, int]]:
        parts, group = Parts(world), group_of(clock=world.clock)
        async with group.awaited(need=2) as calls:
            replicas = [
                calls.add(f"r{number}", parts.part, f"r{number}", seconds, fails=number == 0)
                for number, seconds in enumerate([0.1, 1.0, 60, 0.5, 60])
            ]
        with pytest.raises(LookupError, match="enough others had succeeded"):
            _ = replicas[2].value
        with pytest.raises(LookupError, match="r0"):
            _ = replicas[0].value
        return [each.value for each in replicas if each.ok], parts.cancelled, world.clock(), dict(group.members)

    values, cancelled, at, counted = world.run(main)
    assert (values, sorted(cancelled), at) == (["R1", "R3"], ["r2", "r4"], pytest.approx(1))
    assert counted == {"ok": 2, "defaulted": 0, "failed": 1}


@both
def test_a_group_that_cannot_be_won_any_more_is_not_waited_for(world: World) -> None:
    async def main() -> tuple[float, list[str]]:
        parts, group = Parts(world), group_of(clock=world.clock)

        async def quorum() -> None:
            async with group.awaited(need=3) as calls:
                for number in range(4):
                    fails = number < 2
                    calls.add(f"r{number}", parts.part, f"r{number}", 0.2 if fails else 60, fails=fails)

        with pytest.raises(GroupFailed, match="3 needed"):
            await quorum()
        return world.clock(), sorted(parts.cancelled)

    assert world.run(main) == (pytest.approx(0.2), ["r2", "r3"])


@both
def test_time_is_one_for_all_and_never_more_than_the_callers(world: World) -> None:
    async def main() -> tuple[float, float | None, GroupFailed]:
        parts, group = Parts(world), group_of(GroupSettings(limit=5), clock=world.clock)
        seen: list[float | None] = []

        async def looks() -> None:
            seen.append(deadline.at())
            await world.sleep(60)

        async def page() -> None:
            async with group.awaited() as calls:
                calls.add("looks", looks)
                calls.add("slow", parts.part, "slow", 60)

        start = world.clock()
        deadline.moment.set(start + 1.5)
        with pytest.raises(GroupFailed) as raised:
            await page()
        assert deadline.at() == start + 1.5
        return world.clock() - start, seen[0], raised.value

    took, seen, error = world.run(main)
    assert (took, seen) == (pytest.approx(1.5), pytest.approx(1.5))
    assert all(isinstance(each, DeadlineExceeded) for each in error.errors.values())


@both
def test_nothing_is_begun_when_no_time_is_left(world: World) -> None:
    async def main() -> tuple[object, list[str]]:
        parts, group = Parts(world), group_of(clock=world.clock)
        deadline.moment.set(world.clock())
        async with group.awaited() as calls:
            extra = calls.optional("extra", "default", parts.part, "extra", 0.1)
        return extra.value, list(parts.begun)

    assert world.run(main) == ("default", [])


@both
def test_so_many_run_at_once_and_the_others_in_order_after_them(world: World) -> None:
    async def main() -> tuple[int, list[float]]:
        parts, group = Parts(world), group_of(GroupSettings(limit=60, concurrency=3), clock=world.clock)
        async with group.awaited() as calls:
            for number in range(8):
                calls.add(f"m{number}", parts.part, f"m{number}", 1)
        return parts.most, list(parts.begun.values())

    assert world.run(main) == (3, [0, 0, 0, 1, 1, 1, 2, 2])


@both
@pytest.mark.parametrize("where", ["block", "end"])
def test_a_cancellation_from_outside_ends_all_members_and_counts_as_nothing(world: World, where: str) -> None:
    async def main() -> tuple[bool, list[str], list[str], Group]:
        parts, group = Parts(world), group_of(GroupSettings(limit=60, concurrency=2), clock=world.clock)

        async def page() -> None:
            async with group.awaited() as calls:
                for number in range(4):
                    calls.optional(f"m{number}", None, parts.part, f"m{number}", 30)
                if where == "block":
                    await world.sleep(30)

        ended = await world.cancelled_after(1, page)
        return ended, sorted(parts.cancelled), sorted(parts.begun), group

    ended, cancelled, begun, group = world.run(main)
    assert (ended, cancelled, begun) == (True, ["m0", "m1"], ["m0", "m1"])
    assert group.ended == {"won": 0, "lost": 0}
    assert sum(group.members.values()) == 0


@both
def test_an_error_of_the_block_itself_is_raised_as_it_is(world: World) -> None:
    async def main() -> list[str]:
        parts, group = Parts(world), group_of(clock=world.clock)

        async def page() -> None:
            async with group.awaited() as calls:
                calls.add("slow", parts.part, "slow", 60)
                await world.sleep(0.1)
                raise ValueError("the page's")

        with pytest.raises(ValueError, match="the page's"):
            await page()
        return parts.cancelled

    assert world.run(main) == ["slow"]


@both
def test_groups_within_groups(world: World) -> None:
    async def main() -> tuple[str, float]:
        parts, outer, inner = Parts(world), group_of(clock=world.clock), group_of(clock=world.clock)

        async def row(name: str) -> str:
            async with inner.awaited() as calls:
                left, right = calls.add("l", parts.part, name, 0.5), calls.optional("r", "-", parts.part, "x", 60)
            return left.value + right.value

        async with outer.awaited() as calls:
            rows = [calls.optional(name, "none", row, name) for name in "ab"]
        return ",".join(each.value for each in rows), world.clock()

    # the inner groups have what is left of the outer one: all end at once, and either may be first to say so
    answer, at = world.run(main)
    assert at == pytest.approx(2)
    assert set(answer.split(",")) <= {"A-", "B-", "none"}


def test_members_have_names_of_their_own_and_are_bounded() -> None:
    group = group_of(GroupSettings(members=2))
    with group.called() as calls:
        calls.add("one", lambda: 1)
        with pytest.raises(ValueError, match="there is a member named 'one' already"):
            calls.add("one", lambda: 1)
        calls.add("two", lambda: 2)
        with pytest.raises(ValueError, match="at most 2 members"):
            calls.add("three", lambda: 3)
    with pytest.raises(RuntimeError, match="inside of the group's block"):
        calls.add("late", lambda: 4)
    with pytest.raises(RuntimeError, match="made anew"), calls:
        pass
    with group.called() as empty:
        pass
    assert empty.members == {}


def test_blocking_members_run_in_threads_at_once_with_the_groups_deadline() -> None:
    group, together = group_of(GroupSettings(limit=50)), threading.Barrier(3)

    def part(name: str) -> tuple[str, bool]:
        together.wait(SECONDS_MAX)
        return name, 0 < (deadline.remaining() or 0) <= 50

    with group.called() as calls:
        parts = [calls.add(name, part, name) for name in "abc"]
        with pytest.raises(LookupError, match="has not ended"):
            _ = parts[0].value
    assert [each.value for each in parts] == [("a", True), ("b", True), ("c", True)]
    assert deadline.at() is None


def test_a_blocking_member_that_is_too_slow_is_not_waited_for() -> None:
    group, gate, begun = group_of(GroupSettings(limit=0.1)), threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        gate.wait(SECONDS_MAX)
        return "late"

    with group.called() as calls:
        quick = calls.add("quick", lambda: "quick")
        extra = calls.optional("extra", "default", slow)
    assert (quick.value, extra.value) == ("quick", "default")
    assert begun.is_set()
    gate.set()


def test_of_blocking_members_n_are_enough_and_the_failures_are_told() -> None:
    group, gate = group_of(GroupSettings(limit=20)), threading.Event()

    def replica(number: int) -> int:
        if number == 0:
            raise LookupError("r0")
        if number == 3:
            gate.wait(SECONDS_MAX)
        return number

    with group.called(need=2) as calls:
        replicas = [calls.add(f"r{number}", replica, number) for number in range(4)]
    assert sorted(each.value for each in replicas if each.ok)[:2] == [1, 2]
    gate.set()

    def too_few() -> None:
        with group.called(need=2) as calls:
            for number in (0, 1):
                calls.add(f"r{number}", replica, number)

    with pytest.raises(GroupFailed) as raised:
        too_few()
    assert list(raised.value.errors) == ["r0"]


def test_blocking_members_wait_for_their_turn_and_an_error_of_the_block_starts_no_more() -> None:
    group, gate, begun = group_of(GroupSettings(limit=20, concurrency=1)), threading.Event(), []

    def part(number: int) -> None:
        begun.append(number)
        gate.wait(SECONDS_MAX)

    def page() -> None:
        with group.called() as calls:
            for number in range(3):
                calls.add(f"m{number}", part, number)
            raise ValueError("the page's")

    with pytest.raises(ValueError, match="the page's"):
        page()
    gate.set()
    with group.called() as calls:
        for number in range(3, 6):
            calls.add(f"m{number}", part, number)
    assert [number for number in begun if number > 2] == [3, 4, 5]
    assert not {1, 2} & set(begun)


def test_threads_that_nobody_waits_for_are_bounded_and_members_without_one_say_so() -> None:
    group, gate = group_of(GroupSettings(limit=0.05, concurrency=50, threads=2, members=50)), threading.Event()
    with group.called() as calls:
        members = [calls.optional(f"m{number}", None, gate.wait, SECONDS_MAX) for number in range(20)]
    assert group.workers.count == 2
    assert {type(each.error) for each in members} == {DeadlineExceeded, BulkheadFull}
    gate.set()


def test_its_numbers_are_in_the_registry() -> None:
    registry = Registry()
    group = group_of(registry=registry)
    with group.called() as calls:
        calls.add("one", int)
    text = registry.render()
    assert 'resilience_group_members_total{dependency="page",outcome="ok"} 1' in text
    assert 'resilience_group_calls_total{dependency="page",outcome="won"} 1' in text
    group.configure(GroupSettings(threads=5))
    assert group.settings.threads == group.workers.limit == 5
