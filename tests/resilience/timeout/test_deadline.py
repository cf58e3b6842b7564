"""What is left of the time reaches what is called, in this process and in the next one."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall_resilience import deadline
from squall_resilience.errors import DeadlineExceeded


def test_without_one_nothing_is_limited() -> None:
    assert deadline.at() is None
    assert deadline.remaining() is None
    assert deadline.at_most(None) is None
    assert deadline.at_most(3.0) == 3.0
    assert deadline.to_headers() == {}
    deadline.check()


def test_an_inner_one_is_never_later_than_the_outer() -> None:
    with deadline.within(100) as outer:
        assert outer == 100
        with deadline.within(1000) as inner:
            assert 99 < inner <= 100
        with deadline.within(5) as inner:
            assert inner == 5
            assert deadline.at_most(3.0) == 3.0
            assert 4 < (deadline.at_most(50.0) or 0) <= 5
            assert 4 < (deadline.at_most(None) or 0) <= 5
        assert 99 < (deadline.remaining() or 0) <= 100
    assert deadline.at() is None


def test_one_that_has_passed_leaves_nothing_and_stops_whoever_asks() -> None:
    with deadline.within(-5) as left:
        assert left == 0.0
        assert deadline.remaining() == 0.0
        assert deadline.to_headers() == {"Grpc-Timeout": "1m"}
        with pytest.raises(DeadlineExceeded):
            deadline.check()
        with deadline.detached():
            deadline.check()
            assert deadline.at() is None


def test_it_goes_with_tasks_and_with_a_copied_context_into_threads() -> None:
    seen: list[float | None] = []

    async def child() -> None:
        seen.append(deadline.at())

    async def main() -> float | None:
        with deadline.within(50):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child())
            thread = threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(deadline.at()),))
            thread.start()
            await asyncio.to_thread(thread.join)
            return deadline.at()

    at = asyncio.run(main())
    assert at is not None
    assert seen == [at, at]


@given(st.floats(min_value=0.001, max_value=80_000))
def test_what_is_written_is_read_again_never_longer(seconds: float) -> None:
    text = deadline.written(seconds)
    read = deadline.parse(text)
    assert len(text) <= 9
    assert read is not None
    assert seconds - 0.001 - 1e-6 <= read <= seconds + 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1m"), (-3, "1m"), (1.5, "1500m"), (1e6, "1000000S"), (1e30, "99999999S")]
)
def test_times_at_the_edges_have_a_valid_form(seconds: float, text: str) -> None:
    assert deadline.written(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0), ("2M", 120.0), ("3S", 3.0), ("250m", 0.25), ("9u", 9e-6), ("7n", 7e-9), (" 1S ", 1.0), ("00000010S", 10.0),
        ("", None), ("S", None), ("1", None), ("1s", None), ("-1S", None), ("1.5S", None), ("123456789S", None), ("1 S", None),
        ("\u0661S", None), ("1S1S", None),
    ],
)  # fmt: skip
def test_the_form_is_that_of_grpc(text: str, seconds: float | None) -> None:
    assert deadline.parse(text) == (None if seconds is None else pytest.approx(seconds))


def test_a_request_says_it_in_any_case_as_text_or_bytes_and_the_least_holds() -> None:
    assert deadline.from_headers({"GRPC-TIMEOUT": "2S"}) == 2.0
    assert deadline.from_headers([(b"grpc-timeout", b"2S"), (b"grpc-timeout", b"1S")]) == 1.0
    assert deadline.from_headers({"x-envoy-expected-rq-timeout-ms": "1500", "grpc-timeout": "2S"}) == 1.5
    assert deadline.from_headers({"x-envoy-expected-rq-timeout-ms": "0"}) is None
    assert deadline.from_headers({"grpc-timeout": "later", "x-envoy-expected-rq-timeout-ms": "-1"}) is None
    assert deadline.from_headers({}) is None


def test_the_header_that_is_sent_is_the_one_that_is_read() -> None:
    with deadline.within(7):
        said = deadline.from_headers(deadline.to_headers())
    assert said is not None
    assert 6 < said <= 7
