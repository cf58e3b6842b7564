"""A failed call is sent again when that is safe, in time and within the budget, and its last failure stays what it is."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience import deadline
from squall_resilience.errors import BreakerOpen, BulkheadFull, DeadlineExceeded, RateLimited, RetryBudgetSpent
from squall_resilience.events import Event, GaveUp, Recovered, Retried
from squall_resilience.metrics import Registry
from squall_resilience.retry import Retry, RetryBudget, RetrySettings, attempt_number, idempotent
from squall_resilience.timeout import Timeout, TimeoutSettings
from tests.resilience.worlds import World, both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RULES = RetrySettings(attempts=3, base=1, cap=10)


class Waits(list[float]):
    """Sleeps that are only written down."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def retry_of(rules: RetrySettings = RULES, **given: Any) -> Retry:
    given = {"idempotent": True, "sleeps": Waits(), "draw": lambda: 0.5, "registry": None, **given}
    return Retry("stock", rules, **given)


def failing(*errors: BaseException | None, answer: object = "yes") -> Callable[..., Any]:
    """Raises these in turn, then answers."""
    left = list(errors)

    def call(*_args: object, **_kwargs: object) -> object:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return answer

    return call


def test_a_call_that_succeeds_is_sent_once() -> None:
    retry = retry_of()
    assert retry(failing())() == "yes"
    assert (retry.calls, retry.retries, retry.sleeps) == (1, 0, [])


def test_a_transient_failure_is_followed_by_another_attempt_after_a_wait_that_doubles() -> None:
    told: list[Event] = []
    retry = retry_of(listeners=[told.append])
    assert retry(failing(ConnectionResetError("gone"), TimeoutError("slow")))(1, two=2) == "yes"
    assert retry.sleeps == [0.5, 1.0]
    assert (retry.calls, retry.retries) == (1, 2)
    first, second, end = told
    assert isinstance(first, Retried)
    assert isinstance(second, Retried)
    assert isinstance(end, Recovered)
    assert (first.attempt, first.wait, first.error) == (1, 0.5, "ConnectionResetError: gone")
    assert (second.attempt, second.wait) == (2, 1.0)
    assert (end.attempts, end.error, end.origin) == (3, "TimeoutError: slow", "transport")


def test_what_is_raised_in_the_end_is_the_last_failure_itself_with_a_note() -> None:
    told: list[Event] = []
    retry = retry_of(listeners=[told.append])
    last = ConnectionError("third")
    with pytest.raises(ConnectionError) as raised:
        retry(failing(ConnectionError("first"), ConnectionError("second"), last))()
    assert raised.value is last
    assert raised.value.__context__ is None
    assert raised.value.__notes__ == [
        "retry 'stock': 3 attempts, 1.5 s of waiting, no more: that is all that its settings allow (budget left: 8.0)"
    ]
    assert retry.exhausted["attempts"] == 1
    assert isinstance(told[-1], GaveUp)
    assert (told[-1].attempts, told[-1].cause) == (3, "attempts")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit()])
def test_other_failures_are_nobodys_to_try_again(error: BaseException) -> None:
    retry = retry_of()
    with pytest.raises(type(error)) as raised:
        retry(failing(error))()
    assert raised.value is error
    assert not hasattr(error, "__notes__")
    assert (retry.retries, sum(retry.exhausted.values())) == (0, 0)


def test_a_call_not_declared_idempotent_is_only_sent_again_when_it_was_surely_not_sent() -> None:
    retry = retry_of(idempotent=False)
    with pytest.raises(TimeoutError) as raised:
        retry(failing(TimeoutError("was it carried out?")))()
    assert "not declared idempotent" in raised.value.__notes__[0]
    assert retry.exhausted["not_idempotent"] == 1
    unsent = (ConnectionRefusedError("nobody there"), BulkheadFull("full"))
    assert retry(failing(*unsent))() == "yes"
    assert retry.retries == 2


def test_idempotency_is_declared_by_arguments_by_a_mark_or_by_a_setting() -> None:
    by_method = retry_of(idempotent=lambda method: method == "GET")
    assert by_method(failing(TimeoutError()))("GET") == "yes"
    with pytest.raises(TimeoutError):
        by_method(failing(TimeoutError()))("POST")
    never = retry_of(idempotent=False)
    assert never(idempotent(failing(TimeoutError())))() == "yes"
    unmarked = never(failing(TimeoutError(), TimeoutError()))
    with pytest.raises(TimeoutError):
        unmarked()
    never.configure(RetrySettings(idempotent=True))
    assert unmarked() == "yes"


def test_a_connection_library_says_which_of_its_errors_were_not_sent() -> None:
    class PoolEmptyError(Exception): ...

    retry = retry_of(idempotent=False, on=(PoolEmptyError,), unsent=(PoolEmptyError,))
    assert retry(failing(PoolEmptyError()))() == "yes"
    picky = retry_of(on=lambda error: "again" in str(error))
    assert picky(failing(OSError("again")))() == "yes"
    with pytest.raises(OSError, match="never"):
        picky(failing(OSError("never")))()


def test_results_can_be_failures_too() -> None:
    answers = [503, 503, 200]
    retry = retry_of(on_result=lambda status: status == 503)
    assert retry(lambda: answers.pop(0))() == 200
    assert retry.retries == 2
    assert retry(lambda: 503)() == 503, "the last one is given when there are no more attempts"
    assert retry.exhausted["attempts"] == 1


def test_nobody_waits_for_an_open_breaker() -> None:
    retry = retry_of()
    with pytest.raises(BreakerOpen):
        retry(failing(BreakerOpen("open", retry_after=1.0)))()
    assert retry.sleeps == []
    assert retry.retries == 0


def test_a_wait_that_is_asked_for_is_honoured_and_a_too_long_one_is_not_waited_for() -> None:
    retry = retry_of()
    assert retry(failing(BulkheadFull("full", retry_after=3.0)))() == "yes"
    assert retry.sleeps == [3.5]
    with pytest.raises(RateLimited) as raised:
        retry(failing(RateLimited("too many", retry_after=30.0)))()
    assert "not the time to wait" in raised.value.__notes__[0]
    by_result = retry_of(on_result=lambda answer: answer[0] == 429, asks=lambda answer: answer[1])
    answers = [(429, 2.0), (200, None)]
    assert by_result(lambda: answers.pop(0))() == (200, None)
    assert by_result.sleeps == [2.5]


def test_no_wait_goes_beyond_the_deadline() -> None:
    retry = retry_of(RetrySettings(attempts=10, base=100, cap=100))
    with deadline.within(20), pytest.raises(TimeoutError, match="slow"):
        retry(failing(TimeoutError("slow")))()
    assert (retry.sleeps, retry.exhausted["deadline"]) == ([], 1)


def test_the_budget_is_shared_by_all_callers_and_hides_no_failure() -> None:
    told: list[Event] = []
    budget = RetryBudget(0.0, 3, 10.0, lambda: 0.0)
    one, other = retry_of(budget=budget), retry_of(budget=budget, listeners=[told.append])
    for _ in range(3):
        assert one(failing(TimeoutError()))() == "yes"
    with pytest.raises(TimeoutError, match="mine") as raised:
        other(failing(TimeoutError("mine")))()
    assert isinstance(raised.value.__cause__, RetryBudgetSpent)
    assert other.exhausted["budget"] == 1
    assert "the retry budget is spent" in raised.value.__notes__[0]
    one.configure(RetrySettings(budget=1, budget_minimum=100))
    assert budget.minimum == 3, "a shared budget is not changed by one that shares it"
    assert isinstance(told[-1], GaveUp)


def test_a_dependency_that_is_down_costs_a_bounded_number_of_attempts() -> None:
    now = 0.0
    retry = retry_of(RetrySettings(attempts=5, budget=0.1, budget_minimum=10), clock=lambda: now)

    def down() -> None:
        raise ConnectionError

    call = retry(down)
    for _ in range(3000):
        now += 0.02
        with pytest.raises(ConnectionError):
            call()
    assert retry.retries / retry.calls < 0.12, "amplification stays near the budget"


def test_new_settings_are_in_force_for_the_next_failure_and_the_budget_is_not_forgotten() -> None:
    retry = retry_of(RetrySettings(attempts=2, budget_minimum=5), clock=lambda: 0.0)
    assert retry(failing(TimeoutError()))() == "yes"
    retry.configure(RetrySettings(attempts=9, budget_minimum=3))
    with pytest.raises(TimeoutError):
        retry(failing(*[TimeoutError()] * 9))()
    assert retry.retries == 3, "one was spent of the five, so two of three are left"


def test_a_retry_within_a_retry_does_not_multiply() -> None:
    sent: list[int] = []
    outer, inner = retry_of(), retry_of()

    def down() -> None:
        sent.append(attempt_number())
        raise ConnectionError("down")

    with pytest.raises(ConnectionError) as raised:
        outer(inner(down))()
    assert sent == [1, 2, 3, 2, 3], "three in the outer's first attempt, then one each"
    assert any("is being tried again already" in note for note in raised.value.__notes__)
    assert attempt_number() == 1
    sent.clear()
    greedy = retry_of(RetrySettings(attempts=3, base=1, within_retries=True, budget_minimum=100))
    with pytest.raises(ConnectionError):
        retry_of()(greedy(down))()
    assert len(sent) == 9


def test_notes_on_one_and_the_same_exception_do_not_pile_up() -> None:
    error = ConnectionError("one object for ever")
    retry = retry_of(RetrySettings(attempts=1))
    for _ in range(50):
        with pytest.raises(ConnectionError):
            retry(failing(error))()
    assert len(error.__notes__) == 8


def test_a_failure_whose_text_cannot_be_had_is_still_the_failure() -> None:
    class MuteError(ConnectionError):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(MuteError):
        retry_of(listeners=[lambda _event: None])(failing(MuteError(), MuteError(), MuteError()))()


def test_interrupting_the_wait_gives_the_budget_back() -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    retry = retry_of(sleeps=interrupted, clock=lambda: 0.0)
    before = retry.budget.tokens()
    with pytest.raises(KeyboardInterrupt):
        retry(failing(TimeoutError()))()
    assert retry.budget.tokens() == before
    assert retry.retries == 0


@both
def test_awaited_calls_are_sent_again_by_the_same_task(world: World) -> None:
    async def main() -> tuple[object, float, int]:
        retry, call = retry_of(clock=world.clock), failing(TimeoutError(), ConnectionError())

        @retry
        async def answer(text: str, *, loud: bool) -> object:
            await world.sleep(1)
            assert (text, loud) == ("a", True)
            return call()

        return await answer("a", loud=True), world.clock(), retry.retries

    assert world.run(main) == ("yes", pytest.approx(3 + 0.5 + 1.0), 2)


@both
@pytest.mark.parametrize("after", [0.5, 1.2, 1.7])
def test_cancellation_in_each_phase_goes_through_and_gives_the_budget_back(world: World, after: float) -> None:
    async def main() -> tuple[bool, float, int]:
        retry = retry_of(clock=world.clock)
        before = retry.budget.tokens()

        @retry
        async def answer() -> None:
            await world.sleep(1)
            raise TimeoutError

        ended = await world.cancelled_after(after, answer)
        return ended, round(before - retry.budget.tokens()), attempt_number()

    taken = 1 if after > 1.5 else 0  # the second attempt was sent, so its token is spent
    assert world.run(main) == (True, taken, 1)


@both
def test_each_attempt_has_a_time_out_of_its_own_and_all_have_one_deadline(world: World) -> None:
    async def main() -> tuple[float, int, type[BaseException]]:
        retry = retry_of(RetrySettings(attempts=10, base=1, cap=1), clock=world.clock)
        whole = Timeout("whole", TimeoutSettings(5.2), clock=world.clock, registry=None)
        single = Timeout("single", TimeoutSettings(1), clock=world.clock, registry=None)

        @whole
        @retry
        @single
        async def answer() -> None:
            await world.sleep(60)

        with pytest.raises(DeadlineExceeded) as raised:
            await answer()
        return world.clock(), retry.retries, raised.type

    # attempts at 0, 1.5, 3.0, 4.5; the last one has 0.7 s left, and nothing comes after it
    assert world.run(main) == (pytest.approx(5.2), 3, DeadlineExceeded)


@both
def test_the_loop_form_awaits_its_waits(world: World) -> None:
    async def main() -> tuple[list[int], object, float, int]:
        retry, call, seen = retry_of(clock=world.clock), failing(TimeoutError(), TimeoutError()), []
        answer: object = None
        async for attempt in retry.attempts():
            with attempt:
                seen.append(attempt.number)
                answer = call()
        return seen, answer, world.clock(), retry.calls

    assert world.run(main) == ([1, 2, 3], "yes", pytest.approx(1.5), 1)


def attempts_of(retry: Retry, call: Callable[[], object], **given: bool) -> Iterable[object]:
    for attempt in retry.attempts(**given):
        with attempt:
            yield call()


def test_the_loop_form_raises_the_last_failure_and_other_ones_at_once() -> None:
    retry = retry_of()
    with pytest.raises(TimeoutError, match="third"):
        list(attempts_of(retry, failing(TimeoutError("1"), TimeoutError("2"), TimeoutError("third"))))
    with pytest.raises(ValueError, match="mine"):
        list(attempts_of(retry, failing(ValueError("mine"))))
    assert list(attempts_of(retry, failing(TimeoutError()))) == ["yes"]
    assert (retry.calls, retry.retries, retry.sleeps) == (3, 3, [0.5, 1.0, 0.5])
    with pytest.raises(TimeoutError):
        list(attempts_of(retry, failing(TimeoutError()), idempotent=False))


def test_leaving_the_loop_early_is_a_success() -> None:
    retry = retry_of()
    for attempt in retry.attempts():
        with attempt:
            break
    assert attempt.number == 1
    assert retry.retries == 0


def test_generators_cannot_be_sent_again() -> None:
    def items() -> Iterable[int]:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        retry_of()(items)


def test_many_threads_are_counted_and_share_one_budget() -> None:
    retry = retry_of(RetrySettings(attempts=2, budget=0, budget_minimum=50, window=3600))

    def caller() -> None:
        for _ in range(200):
            with suppress(TimeoutError):
                retry(failing(TimeoutError()))()

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert retry.calls == 1600
    assert retry.retries == 50
    assert retry.exhausted["budget"] == 1550


def test_a_listener_that_raises_or_calls_the_pattern_changes_nothing() -> None:
    retry = retry_of()
    heard: list[object] = []

    def listener(event: Event) -> None:
        heard.append(event)
        if len(heard) < 5:
            retry(lambda: None)()
        raise RuntimeError("a listener's own")

    retry.listeners.add(listener)
    assert retry(failing(TimeoutError()))() == "yes"
    assert [type(each) for each in heard] == [Retried, Recovered]


def test_its_numbers_are_in_the_registry() -> None:
    registry = Registry()
    retry = retry_of(registry=registry)
    retry(failing(TimeoutError()))()
    text = registry.render()
    assert 'resilience_retry_calls_total{dependency="stock"} 1' in text
    assert 'resilience_retry_attempts_total{dependency="stock"} 2' in text
    assert 'resilience_retry_exhausted_total{dependency="stock",cause="budget"} 0' in text
    assert 'resilience_retry_budget_tokens{dependency="stock"} ' in text
