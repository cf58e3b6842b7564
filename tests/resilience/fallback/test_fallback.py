"""When a dependency does not answer, the last good answer does, or a preset one, and one can tell which it was."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience.errors import BreakerOpen, SettingsError
from squall_resilience.events import Event, FellBack
from squall_resilience.fallback import Fallback, FallbackSettings
from squall_resilience.metrics import Registry
from squall_resilience.substitutes import Substitute, staleness
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shop:
    """A dependency that can be switched off, and a clock set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.down: BaseException | None = None
        self.prices = {"tea": 3, "coffee": 5}

    def price(self, sku: str, *, currency: str = "eur") -> int:
        if self.down is not None:
            raise self.down
        return self.prices[sku] * (2 if currency == "usd" else 1)

    def fallback(self, **given: Any) -> Fallback:
        return Fallback("prices", clock=lambda: self.now, **{"registry": None, **given})


def test_the_last_good_answer_for_the_same_arguments_stands_in_for_its_time() -> None:
    shop = Shop()
    price = shop.fallback()(shop.price)
    assert [price("tea"), price("coffee"), price("tea", currency="usd")] == [3, 5, 6]
    shop.down, shop.now = ConnectionError("down"), 29.9
    assert [price("tea"), price("coffee"), price("tea", currency="usd")] == [3, 5, 6]
    shop.now = 30.1
    with pytest.raises(ConnectionError, match="down"):
        price("tea")


def test_a_good_answer_renews_the_one_that_is_kept() -> None:
    shop = Shop()
    price = shop.fallback()(shop.price)
    price("tea")
    shop.now, shop.prices["tea"] = 20, 4
    assert price("tea") == 4
    shop.down, shop.now = ConnectionError(), 45
    assert price("tea") == 4


def test_a_preset_answer_comes_after_the_kept_one_and_may_be_none() -> None:
    shop = Shop()
    fallback = shop.fallback(preset=None)
    price = fallback(shop.price)
    price("tea")
    shop.down = ConnectionError()
    assert price("tea") == 3
    assert price("milk") is None
    assert fallback.answers == {"primary": 1, "cached": 1, "preset": 1, "none": 0}


def test_a_computed_answer_has_the_arguments_and_its_failure_is_a_note_on_the_first() -> None:
    shop = Shop()
    fallback = shop.fallback(compute=lambda sku, **_kwargs: {"tea": 99}[sku])
    price = fallback(shop.price)
    shop.down = ConnectionError("down")
    assert price("tea", currency="eur") == 99
    with pytest.raises(ConnectionError, match="down") as raised:
        price("milk")
    assert raised.value.__notes__ == ["fallback 'prices': failed as well: KeyError: 'milk'"]
    assert fallback.answers == {"primary": 0, "cached": 0, "preset": 1, "none": 1}


def test_what_is_not_covered_and_what_is_no_exception_goes_through() -> None:
    shop = Shop()
    fallback = shop.fallback(preset=0, on=(ConnectionError,))
    price = fallback(shop.price)
    for error in (ValueError("mine"), KeyboardInterrupt(), SystemExit()):
        shop.down = error
        with pytest.raises(type(error)):
            price("tea")
    shop.down = ConnectionResetError()
    assert price("tea") == 0
    picky = shop.fallback(preset=0, on=lambda error: "please" in str(error))(shop.price)
    shop.down = ValueError("please")
    assert picky("tea") == 0
    assert fallback.answers == {"primary": 0, "cached": 0, "preset": 1, "none": 0}


def test_it_can_be_noticed_which_answers_are_substitutes_and_how_old() -> None:
    shop = Shop()
    price = shop.fallback(preset=0)(shop.price)
    with staleness() as seen:
        price("tea")
    assert not seen
    shop.down, shop.now = BreakerOpen("open", dependency="prices"), 12
    with staleness() as outer, staleness() as seen:
        price("tea")
        price("milk")
    assert seen.answers == [
        Substitute("prices", "cached", 12.0, "BreakerOpen: open"),
        Substitute("prices", "preset", 0.0, "BreakerOpen: open"),
    ]
    assert (seen.age, seen.dependencies) == (12.0, ("prices",))
    assert outer.answers == seen.answers
    price("tea")
    assert len(seen.answers) == 2, "nobody notices after the block"


def test_what_is_noticed_is_bounded() -> None:
    shop = Shop()
    shop.down = ConnectionError()
    price = shop.fallback(preset=0)(shop.price)
    with staleness() as seen:
        for _ in range(1000):
            price("tea")
    assert len(seen.answers) == 100


def test_tasks_and_threads_of_the_block_are_noticed_too() -> None:
    shop = Shop()
    shop.down = ConnectionError()
    price = shop.fallback(preset=0)(shop.price)

    async def main() -> int:
        async def child() -> None:
            price("tea")

        with staleness() as seen:
            await asyncio.gather(child(), asyncio.create_task(child()), asyncio.to_thread(price, "tea"))
            thread = threading.Thread(target=contextvars.copy_context().run, args=(price, "tea"))
            thread.start()
            thread.join()
        return len(seen.answers)

    assert asyncio.run(main()) == 4


def test_it_is_told_with_where_the_failure_came_from() -> None:
    told: list[Event] = []
    shop = Shop()
    price = shop.fallback(listeners=[told.append])(shop.price)
    price("tea")
    shop.down, shop.now = BreakerOpen("open", dependency="prices"), 2
    price("tea")
    (event,) = told
    assert isinstance(event, FellBack)
    assert (event.answer, event.age, event.error, event.origin) == ("cached", 2, "BreakerOpen: open", "breaker")


def test_one_fallback_serves_several_functions_without_mixing_them_up() -> None:
    shop = Shop()
    fallback = shop.fallback()
    stock = {"tea": 100}

    @fallback
    def in_stock(sku: str) -> int:
        if shop.down:
            raise shop.down
        return stock[sku]

    price = fallback(shop.price)
    other = Shop()
    other.prices["tea"] = 77
    others_price = fallback(other.price)
    assert (in_stock("tea"), price("tea"), others_price("tea")) == (100, 3, 77)
    shop.down = other.down = ConnectionError()
    assert (in_stock("tea"), price("tea"), others_price("tea")) == (100, 3, 77)


def test_a_chain_made_anew_finds_the_answers_of_the_old_one() -> None:
    shop = Shop()
    fallback = shop.fallback()

    def call(sku: str) -> int:
        return shop.price(sku)

    def chain() -> Any:
        @functools.wraps(call)
        def inner(sku: str) -> int:
            return call(sku)

        return fallback(inner)

    assert chain()("tea") == 3
    shop.down = ConnectionError()
    assert chain()("tea") == 3


def test_arguments_without_a_hash_are_not_kept_and_a_key_may_be_made_from_them() -> None:
    shop = Shop()

    def total(skus: list[str]) -> int:
        return sum(shop.price(sku) for sku in skus)

    plain, keyed = shop.fallback()(total), shop.fallback(key=tuple)(total)
    assert plain(["tea"]) == keyed(["tea"]) == 3
    shop.down = ConnectionError()
    assert keyed(["tea"]) == 3
    with pytest.raises(ConnectionError):
        plain(["tea"])


def test_a_key_that_fails_spoils_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def broken(sku: str) -> str:
        raise LookupError(sku)

    shop = Shop()
    assert shop.fallback(key=broken)(shop.price)("tea") == 3
    assert "the key of fallback 'prices' failed" in caplog.text


def test_positional_and_named_arguments_are_not_taken_for_each_other() -> None:
    fallback, down = Shop().fallback(), False

    @fallback
    def echo(*args: object, **kwargs: object) -> object:
        if down:
            raise ConnectionError
        return args, kwargs

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}), ((1,), {}), ((), {"a": 1}), ((1,), {"a": 1}), (((1,), (("a", 1),)), {}), ((("a", 1),), {}),
    ]  # fmt: skip
    given = [echo(*args, **kwargs) for args, kwargs in calls]
    down = True
    assert [echo(*args, **kwargs) for args, kwargs in calls] == given


def test_new_settings_are_in_force_for_the_next_call() -> None:
    shop = Shop()
    fallback = shop.fallback()
    price = fallback(shop.price)
    price("tea")
    shop.down, shop.now = ConnectionError(), 40
    fallback.configure(FallbackSettings(ttl=60))
    assert price("tea") == 3, "what was kept is not forgotten"
    fallback.configure(FallbackSettings(last_good=False))
    with pytest.raises(ConnectionError):
        price("tea")
    assert len(fallback.kept) == 0


@both
def test_awaited_calls_fall_back_too_and_may_await_their_substitute(world: World) -> None:
    async def main() -> tuple[object, ...]:
        shop = Shop()

        async def other_shop(sku: str) -> int:
            await world.sleep(1)
            if sku == "milk":
                raise LookupError
            return 7

        @shop.fallback(compute=other_shop)
        async def price(sku: str) -> int:
            await world.sleep(1)
            return shop.price(sku)

        first = await price("tea")
        shop.down = ConnectionError("down")
        answers = first, await price("tea"), await price("coffee")
        with pytest.raises(ConnectionError, match="down"):
            await price("milk")
        return answers

    assert world.run(main) == (3, 3, 7)


@both
def test_cancellation_is_no_failure(world: World) -> None:
    async def main() -> tuple[bool, dict[str, int]]:
        fallback = Shop().fallback(preset=0)

        @fallback
        async def price() -> int:
            await world.sleep(60)
            return 1

        return await world.cancelled_after(1, price), dict(fallback.answers)

    assert world.run(main) == (True, {"primary": 0, "preset": 0, "cached": 0, "none": 0})


def test_generators_are_refused() -> None:
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="what was yielded cannot be taken back"):
        Shop().fallback()(items)


def test_its_numbers_are_in_the_registry_and_its_settings_have_ranges() -> None:
    registry, shop = Registry(), Shop()
    fallback = shop.fallback(registry=registry)
    fallback(shop.price)("tea")
    text = registry.render()
    assert 'resilience_fallback_calls_total{dependency="prices",answer="primary"} 1' in text
    assert 'resilience_fallback_calls_total{dependency="prices",answer="none"} 0' in text
    with pytest.raises(SettingsError) as raised:
        FallbackSettings(ttl=-1, keys=0, last_good="yes")  # type: ignore[arg-type]
    assert [each.path for each in raised.value.problems] == ["ttl", "keys", "last_good"]


def test_many_threads_keep_and_ask_at_once() -> None:
    shop = Shop()
    fallback = shop.fallback(preset=0, settings=FallbackSettings(keys=10))
    failed: list[BaseException] = []

    @fallback
    def echo(number: int) -> int:
        if number % 3 == 0:
            raise ConnectionError
        return number

    def caller() -> None:
        try:
            for number in range(3000):
                assert echo(number % 50) in {number % 50, 0}
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failed.append(error)

    threads = [threading.Thread(target=caller) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert not failed
    assert len(fallback.kept) <= 10
    assert sum(fallback.answers.values()) == 18000
