"""Which of several matches are hit: never more than was said, and the same ones for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import TargetError
from squall.targets import RouteTarget, pick

ROUTES = [RouteTarget(f"127.0.0.1:{port}", "127.0.0.1:80") for port in range(8001, 8011)]
MODES = st.sampled_from(["one", "all", "fixed", "fixed-percent", "random-max-percent"])


def test_several_matches_without_a_mode_are_refused_and_listed() -> None:
    with pytest.raises(
        TargetError, match=r"10 match \(route .*8001 .*, \.\.\.\): say which, or give a mode \(one, all, fixed"
    ):
        pick(ROUTES, None, None, seed="7")


def test_one_match_needs_no_mode() -> None:
    assert pick(ROUTES[:1], None, None, seed="7") == ROUTES[:1]


@pytest.mark.parametrize(
    ("mode", "value", "count"),
    [("one", None, 1), ("all", None, 10), ("fixed", 3, 3), ("fixed-percent", 0.25, 2), ("fixed-percent", 0.01, 1)],
)
def test_a_mode_says_how_many(mode: str, value: float | None, count: int) -> None:
    assert len(pick(ROUTES, mode, value, seed="7")) == count  # type: ignore[arg-type]  # the modes of the parametrisation


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(TargetError, match="11 were asked for, only 10 match"):
        pick(ROUTES, "fixed", 11, seed="7")


def test_the_blast_radius_is_a_refusal_not_a_cut() -> None:
    with pytest.raises(TargetError, match="10 would be hit, more than the 4 that `most` allows"):
        pick(ROUTES, "all", None, seed="7", most=4)
    assert len(pick(ROUTES, "fixed", 4, seed="7", most=4)) == 4


@given(mode=MODES, share=st.floats(0.01, 1), seed=st.text(max_size=8), size=st.integers(1, 10))
def test_the_same_seed_picks_the_same_in_their_order(mode: str, share: float, seed: str, size: int) -> None:
    matches = ROUTES[:size]
    value = max(1, int(share * size)) if mode == "fixed" else share
    picked = pick(matches, mode, value, seed=seed)  # type: ignore[arg-type]  # the modes above
    assert picked == pick(matches, mode, value, seed=seed)  # type: ignore[arg-type]
    assert 1 <= len(picked) <= size
    assert picked == sorted(set(picked), key=matches.index)
    if mode == "random-max-percent":
        assert len(picked) <= max(1, int(share * size))


def test_different_seeds_pick_differently() -> None:
    assert len({pick(ROUTES, "one", None, seed=str(seed))[0].listen for seed in range(50)}) > 5
