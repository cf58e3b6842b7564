"""Buckets by key: what they give back, and what stays taken when rates and bounds change."""

from __future__ import annotations

import pytest

from squall_resilience.core.bucket import Bucket, Rate
from squall_resilience.core.keyed import KeyedBuckets

NOW = 50.0
SLOW, FAST = Rate.of(1, 2.0, 4, wait=8.0), Rate.of(4, 1.0, 4, wait=8.0)


def used(keyed: KeyedBuckets, key: object, tokens: int, now: float = NOW) -> None:
    for _ in range(tokens):
        assert keyed.take(key, now) == 0


def left(keyed: KeyedBuckets, key: object, now: float = NOW) -> int:
    return sum(keyed.take(key, now) == 0 for _ in range(10))


def test_all_that_are_kept_are_counted() -> None:
    keyed = KeyedBuckets(SLOW, 16, {"own": FAST})
    for key in ("a", "b", "own"):
        keyed.take(key, NOW)
    assert len(keyed) == 3


@pytest.mark.parametrize(("key", "interval"), [("plain", 2.0), ("own", 0.25), ("x" * 500, 2.0)])
def test_a_token_is_given_back_unless_somebody_has_come_since(key: str, interval: float) -> None:
    keyed = KeyedBuckets(SLOW, 16, {"own": FAST})
    used(keyed, key, 4)
    assert keyed.take(key, NOW, 8.0) == interval
    first = keyed.full_at(key)
    assert keyed.give_back(key, first)
    assert keyed.take(key, NOW, 8.0) == interval
    assert keyed.take(key, NOW, 8.0) == 2 * interval
    assert not keyed.give_back(key, first)
    assert keyed.take(key, NOW, 8.0) == 3 * interval


def test_one_bucket_gives_back_only_the_last_token() -> None:
    bucket = Bucket(SLOW)
    bucket.take(NOW)
    first = bucket.full_at
    bucket.take(NOW)
    assert not bucket.give_back(first)
    assert bucket.give_back(bucket.full_at)
    assert bucket.full_at == first


def test_a_key_that_is_not_kept_has_nothing_to_give_back() -> None:
    keyed = KeyedBuckets(SLOW, 16, {})
    assert keyed.full_at("unknown") == float("-inf")
    assert not keyed.give_back("unknown", NOW)


@pytest.mark.parametrize("tokens", range(5))
def test_another_rate_leaves_as_many_tokens_as_there_were(tokens: int) -> None:
    keyed, bucket = KeyedBuckets(SLOW, 16, {}), Bucket(SLOW)
    used(keyed, "a", tokens)
    for _ in range(tokens):
        bucket.take(NOW)
    keyed.configure(FAST, 16, {}, NOW)
    bucket.configure(FAST, NOW)
    assert left(keyed, "a") == 4 - tokens == sum(bucket.take(NOW) == 0 for _ in range(10))
    assert left(keyed, "a", NOW + 0.25) == 1 == sum(bucket.take(NOW + 0.25) == 0 for _ in range(10))


@pytest.mark.parametrize("keys_max", [16, 64])
@pytest.mark.parametrize("tokens", range(5))
def test_what_fell_out_of_the_table_is_remembered_at_another_rate_too(keys_max: int, tokens: int) -> None:
    keyed = KeyedBuckets(SLOW, 16, {})
    used(keyed, "a", tokens)
    for number in range(16):
        keyed.take(number, NOW - 20.0)  # long full again: they leave nothing behind
    assert "a" not in keyed.table
    keyed.configure(FAST, keys_max, {}, NOW)
    if keys_max == 16:
        assert left(keyed, "somebody else") == 4
    assert left(keyed, "a") == 4 - tokens
    keyed.configure(SLOW, keys_max, {}, NOW)
    assert left(keyed, "a") == 0


def test_nobody_is_less_full_for_a_change_while_nothing_is_taken() -> None:
    keyed = KeyedBuckets(SLOW, 16, {})
    for number, keys_max in enumerate((64, 64, 16)):
        keyed.configure(FAST, keys_max, {}, NOW)
        assert left(keyed, number) == 4


def test_a_smaller_table_keeps_the_most_recent_keys_that_fit() -> None:
    keyed = KeyedBuckets(SLOW, 32, {})
    for number in range(20):
        keyed.take(number, NOW)
    keyed.configure(SLOW, 20, {}, NOW)
    assert list(keyed.table) == list(range(20))
    keyed.configure(SLOW, 16, {}, NOW)
    assert list(keyed.table) == list(range(4, 20))
