"""Tasks of a crew end with its block, whatever happens in it, and their errors are theirs."""

from __future__ import annotations

import pytest

from squall_resilience.crew import crew
from tests.resilience.worlds import World, both


@both
def test_the_block_waits_for_all(world: World) -> None:
    async def main() -> tuple[list[int], float]:
        ended: list[int] = []

        def takes(seconds: int) -> object:
            async def member() -> None:
                await world.sleep(seconds)
                ended.append(seconds)

            return member

        async with crew() as hands:
            for seconds in (3, 1, 2):
                hands.start(takes(seconds))  # type: ignore[arg-type]
        return ended, world.clock()

    assert world.run(main) == ([1, 2, 3], pytest.approx(3))


@both
def test_an_error_of_the_block_is_raised_as_it_is_after_all_have_been_cancelled(world: World) -> None:
    ended: list[str] = []

    async def main() -> None:
        async def member() -> None:
            try:
                await world.sleep(60)
            finally:
                ended.append("member")

        async def block() -> None:
            async with crew() as hands:
                hands.start(member)
                await world.sleep(1)
                raise LookupError("the block's")

        with pytest.raises(LookupError, match="the block's"):
            await block()
        assert world.clock() == pytest.approx(1)

    world.run(main)
    assert ended == ["member"]


@both
def test_an_error_of_a_member_ends_neither_the_others_nor_the_block(world: World) -> None:
    async def main() -> list[str]:
        ended: list[str] = []

        async def fails() -> None:
            raise LookupError

        async def works() -> None:
            await world.sleep(1)
            ended.append("works")

        async with crew() as hands:
            hands.start(fails)
            hands.start(works)
            await world.sleep(0.5)
            ended.append("block")
        return ended

    assert world.run(main) == ["block", "works"]


@both
def test_one_or_all_can_be_cancelled(world: World) -> None:
    async def main() -> tuple[list[int], float]:
        ended: list[int] = []

        def member(number: int) -> object:
            async def run() -> None:
                await world.sleep(number)
                ended.append(number)

            return run

        async with crew() as hands:
            mates = [hands.start(member(number)) for number in (1, 2, 3, 4)]  # type: ignore[arg-type]
            mates[0].cancel()
            await world.sleep(2.5)
            mates[1].cancel()
            hands.cancel()
        return ended, world.clock()

    assert world.run(main) == ([2], pytest.approx(2.5))


@both
@pytest.mark.parametrize("where", ["block", "end"])
def test_a_cancellation_from_outside_ends_all_and_goes_through(world: World, where: str) -> None:
    ended: list[str] = []

    async def main() -> bool:
        async def member() -> None:
            try:
                await world.sleep(60)
            finally:
                ended.append("member")

        async def holds() -> None:
            async with crew() as hands:
                hands.start(member)
                if where == "block":
                    await world.sleep(60)

        return await world.cancelled_after(1, holds)

    assert world.run(main)
    assert ended == ["member"]
