"""A covering array: few rows in which any two values of any two factors stand together at least once."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Row", "pairs_of", "rows"]

Row = dict[str, str]
Pair = frozenset[tuple[str, str]]
_TRIES = 40


def pairs_of(row: Row) -> set[Pair]:
    """The pairs that a row covers."""
    return {frozenset(pair) for pair in itertools.combinations(sorted(row.items()), 2)}


def rows(factors: Mapping[str, Sequence[str]], possible: Callable[[Row], bool], seed: int) -> list[Row]:
    """Rows that cover every pair which any possible row has; greedy, the same for the same seed."""
    draw = random.Random(seed)
    everything = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    allowed = [row for row in everything if possible(row)]
    left = {pair for row in allowed for pair in pairs_of(row)}
    found: list[Row] = []
    while left:
        wanted = draw.choice(sorted(left, key=sorted))
        having = [row for row in allowed if wanted <= set(row.items())]
        tried = draw.sample(having, min(_TRIES, len(having)))
        best = max(tried, key=lambda row: len(pairs_of(row) & left))
        found.append(best)
        left -= pairs_of(best)
    return found
