"""A generator through a guard is one passage, from its first item to its end, and behaves as without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import pytest

from squall_resilience.pattern import Guarding
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable
    from types import TracebackType

    from squall_resilience.metrics import Sample

P = ParamSpec("P")
R = TypeVar("R")


class Turnstile(Guarding):
    """Writes down who passes and how each passage ends."""

    kind = "turnstile"

    def __init__(self) -> None:
        super().__init__("door", registry=None)
        self.seen: list[str] = []

    def guard(self) -> Passage:
        return Passage(self.seen)

    def wrap_sync(self, call: Callable[P, R]) -> Callable[P, R]:
        return call

    def wrap_async(self, call: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        raise NotImplementedError

    def samples(self) -> Iterable[Sample]:
        return ()


class Passage:
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def __enter__(self) -> Self:
        self.seen.append("in")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seen.append("out" if kind is None else kind.__name__)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def talk(door: Turnstile, closed: list[str]) -> Callable[[], Generator[str, str, str]]:
    @door
    def conversation() -> Generator[str, str, str]:
        try:
            heard = yield "first"
            try:
                heard = yield heard.upper()
            except LookupError as error:
                heard = yield f"caught {error}"
            if heard == "fail":
                raise ValueError(heard)
            return heard
        finally:
            closed.append("closed")

    return conversation


def talk_over_time(world: World, door: Turnstile, closed: list[str]) -> Callable[[], AsyncGenerator[str, str]]:
    @door
    async def conversation() -> AsyncGenerator[str, str]:
        try:
            heard = yield "first"
            await world.sleep(1)
            try:
                heard = yield heard.upper()
            except LookupError as error:
                heard = yield f"caught {error}"
            if heard == "fail":
                raise ValueError(heard)
        finally:
            closed.append("closed")

    return conversation


def test_nothing_passes_before_the_first_item_and_once_until_the_end() -> None:
    door, closed = Turnstile(), []
    items = talk(door, closed)()
    assert door.seen == []
    assert next(items) == "first"
    assert door.seen == ["in"]
    assert items.send("second") == "SECOND"
    assert items.throw(LookupError("it")) == "caught it"
    with pytest.raises(StopIteration) as end:
        items.send("last")
    assert (end.value.value, door.seen, closed) == ("last", ["in", "out"], ["closed"])


def test_an_error_of_the_generator_ends_the_passage_with_it() -> None:
    door, closed = Turnstile(), []
    items = talk(door, closed)()
    next(items)
    items.send("second")
    with pytest.raises(ValueError, match="fail"):
        items.send("fail")
    assert (door.seen, closed) == (["in", "ValueError"], ["closed"])


def test_leaving_early_is_a_success_and_closes_the_generator() -> None:
    door, closed = Turnstile(), []
    items = talk(door, closed)()
    next(items)
    items.close()
    assert (door.seen, closed) == (["in", "out"], ["closed"])
    dropped = talk(door, closed)()
    next(dropped)
    del dropped
    assert door.seen == ["in", "out", "in", "out"]


@both
def test_the_same_over_time(world: World) -> None:
    async def main() -> tuple[list[str], list[str], list[str]]:
        door, closed = Turnstile(), []
        items = talk_over_time(world, door, closed)()
        heard = [await items.asend(None), await items.asend("second"), await items.athrow(LookupError("it"))]  # type: ignore[arg-type]
        with pytest.raises(StopAsyncIteration):
            await items.asend("last")
        return heard, door.seen, closed

    assert world.run(main) == (["first", "SECOND", "caught it"], ["in", "out"], ["closed"])


@both
def test_an_error_leaving_early_and_cancellation_over_time(world: World) -> None:
    async def main() -> tuple[list[str], list[str]]:
        door, closed = Turnstile(), []
        failing = talk_over_time(world, door, closed)()
        await failing.asend(None)  # type: ignore[arg-type]
        await failing.asend("second")
        with pytest.raises(ValueError, match="fail"):
            await failing.asend("fail")
        early = talk_over_time(world, door, closed)()
        async for _ in early:
            break
        await early.aclose()

        async def consumes() -> None:
            async for _ in talk_over_time(world, door, closed)():
                pass

        await world.cancelled_after(0.5, consumes)
        return door.seen, closed

    seen, closed = world.run(main)
    assert seen[:4] == ["in", "ValueError", "in", "out"]
    assert seen[4] == "in"
    assert seen[5] == ("CancelledError" if world.library == "asyncio" else "Cancelled")
    assert closed == ["closed"] * 3
