"""How large a share is, and how sure one can be: the one interval that everything is judged by.

Requests within a second share their fate (a pause, a full queue, a lost connection), so they must not be counted as
independent. The interval is the wider, at each end, of two:

- exact: Clopper-Pearson, as if every request were on its own; right when failures are few or none;
- blocks: a circular block bootstrap over whole seconds (Politis and Romano 1992, after Kuensch 1989), which keeps
  together what happened together. It gives the standard error, which is carried to the logit scale (delta method),
  where a small share's error is about as wide above as below; Student's t for the number of blocks allows for how few they are (as with few
  clusters: Cameron, Gelbach and Miller 2008).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from squall.analysis.exact import FINEST, RESOLUTION, clopper_pearson, student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONFIDENCE", "Interval", "Outcome", "resampled_shares", "rule", "share_interval"]

CONFIDENCE = 0.95
_REPLICATES = 600
_UNITS_MAX = 240
"""Longer phases are resampled in units of several seconds, so that the work has a bound."""

_LOGIT_MOST = 700.0
"""Beyond it exp() overflows and the share is 0 to all digits."""

Outcome = Literal["met", "broken", "unclear"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and the number of samples behind it; n = 0 says nothing (0 to 1).

    `open_above`: `high` is only what was seen; the truth may be higher (too few samples, or requests that were given up).
    """

    value: float
    low: float
    high: float
    n: int
    open_above: bool = False

    def to_json(self) -> dict[str, float]:
        """As a finding carries it: value, low, high, n, and `open_above: 1` where it is."""
        numbers: dict[str, float] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return {**numbers, "open_above": 1} if self.open_above else numbers


def rule(share: Interval, allowed: float) -> Outcome:
    """The three-way rule: broken, met or unclear.

    Broken when the whole interval is above what is allowed; met when the value is within it and the interval shuts out
    RESOLUTION times as much; else unclear.
    """
    if share.n == 0:
        return "unclear"
    if share.low > allowed:
        return "broken"
    if share.value <= allowed and share.high <= max(allowed, FINEST) * RESOLUTION:
        return "met"
    return "unclear"


def share_interval(bad: Sequence[int], total: Sequence[int], seed: int = 0) -> Interval:
    """The share of bad samples, from the counts of each second in order of time (seconds without samples count too)."""
    n, failed = sum(total), sum(bad)
    low, high = clopper_pearson(failed, n, CONFIDENCE)
    if n == 0:
        return Interval(0.0, low, high, 0)
    value = failed / n
    if 1 < failed < n - 1 and len(total) > 1:  # one failure alone tells nothing about how failures cluster
        error = _deviation(resampled_shares(bad, total, seed)) / (value * (1 - value))
        half = _student_for(len(_merged(total))) * error
        logit = math.log(value / (1 - value))
        low, high = min(low, _share(logit - half)), max(high, _share(logit + half))
    return Interval(value, low, high, n)


def resampled_shares(bad: Sequence[int], total: Sequence[int], seed: int = 0) -> list[float]:
    """The shares of bad samples in many resamplings of blocks of seconds; not for empty samples."""
    units_bad, units = _merged(bad), _merged(total)
    length = _block_length(len(units))
    blocks_bad, blocks = _block_sums(units_bad, length), _block_sums(units, length)
    per_replicate, draws = _draws(len(units), seed)
    drawn_bad, drawn = [blocks_bad[i] for i in draws], [blocks[i] for i in draws]
    shares = []
    for first in range(0, len(draws), per_replicate):
        size = sum(drawn[first : first + per_replicate])
        if size:
            shares.append(sum(drawn_bad[first : first + per_replicate]) / size)
        else:
            shares.append(sum(bad) / max(1, sum(total)))
    return shares


def _merged(counts: Sequence[int]) -> list[int]:
    step = math.ceil(len(counts) / _UNITS_MAX)
    return list(counts) if step <= 1 else [sum(counts[i : i + step]) for i in range(0, len(counts), step)]


def _block_length(units: int) -> int:
    """Of the order of the cube root of the number of units (best for variances: Kuensch 1989), but at least five blocks.

    The factor is generous: a service's trouble lasts for some seconds, and blocks shorter than it make intervals too
    narrow, while longer ones only make them a little wider.
    """
    return max(1, min(math.ceil(2.5 * math.cbrt(units) - 1e-9), units // 5))


def _block_sums(counts: list[int], length: int) -> list[int]:
    """The sum of each run of `length` units, the first following upon the last."""
    sums = [0, *accumulate(counts + counts[:length])]
    return [sums[i + length] - sums[i] for i in range(len(counts))]


@lru_cache(maxsize=16)
def _draws(units: int, seed: int) -> tuple[int, tuple[int, ...]]:
    """How many blocks make one replicate, and the first units of the blocks of all replicates."""
    per_replicate = math.ceil(units / _block_length(units))
    # Not for secrets: the same seed must give the same interval.
    return per_replicate, tuple(random.Random(seed).choices(range(units), k=per_replicate * _REPLICATES))  # noqa: S311


@lru_cache(maxsize=256)
def _student_for(units: int) -> float:
    blocks = max(2.0, units / _block_length(units))
    return student_quantile((1 + CONFIDENCE) / 2, blocks - 1) * math.sqrt(blocks / (blocks - 1))


def _deviation(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -_LOGIT_MOST else 0.0
