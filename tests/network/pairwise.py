"""A covering array: few rows in which any two values of any two factors stand together at least once."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Row", "pairs_of", "possible_pairs", "rows"]

Row = dict[str, str]
Pair = frozenset[tuple[str, str]]
_TRIES = 40
_DRAWN = 6000


def pairs_of(row: Row) -> set[Pair]:
    """The pairs that a row covers."""
    return {frozenset(pair) for pair in itertools.combinations(sorted(row.items()), 2)}


def rows(factors: Mapping[str, Sequence[str]], possible: Callable[[Row], bool], seed: int) -> list[Row]:
    """Rows that cover every pair which many possible rows, drawn at random, have; greedy, the same for the same seed."""
    draw = random.Random(seed)
    drawn = ({name: draw.choice(values) for name, values in factors.items()} for _ in range(_DRAWN))
    pool = [(row, pairs_of(row)) for row in drawn if possible(row)]
    left = {pair for _, pairs in pool for pair in pairs}
    found: list[Row] = []
    while left:
        wanted = min(left, key=sorted)
        row, pairs = max(
            itertools.islice(((row, pairs) for row, pairs in pool if wanted in pairs), _TRIES),
            key=lambda one: len(one[1] & left),
        )
        found.append(row)
        left -= pairs
    return found


def possible_pairs(factors: Mapping[str, Sequence[str]], possible: Callable[[Row], bool]) -> set[Pair]:
    """Every pair that any possible row has; looks at all rows there are."""
    everything = (dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values()))
    return {pair for row in everything if possible(row) for pair in pairs_of(row)}
