"""How many of the matches are hit, and which: decided by the seed."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from squall.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.targets.base import Target

__all__ = ["Mode", "pick"]

Mode = Literal["one", "all", "fixed", "fixed-percent", "random-max-percent"]
T = TypeVar("T", bound="Target")


def pick(
    matches: Sequence[T], mode: Mode | None, value: float | None, *, seed: str, most: int | None = None
) -> list[T]:
    """Some of the matches, in the order they came.

    `value` is a count for `fixed`, a share 0..1 for the percent modes (`fixed-percent` rounds down but hits at least
    one; `random-max-percent` hits between one and that many). The same seed picks the same positions. TargetError when
    several match without a mode, when fewer match than `fixed` asks for, or when more than `most` would be hit.
    """
    draw = random.Random(seed)  # noqa: S311 - replayed from a seed, not a secret
    if mode is None:
        if len(matches) > 1:
            listed = ", ".join(one.label for one in matches[:5]) + (", ..." if len(matches) > 5 else "")  # noqa: PLR2004
            modes = ", ".join(get_args(Mode))
            raise TargetError(f"{len(matches)} match ({listed}): say which, or give a mode ({modes})")
        count = len(matches)
    elif mode == "all":
        count = len(matches)
    elif mode == "one":
        count = 1
    elif mode == "fixed":
        count = int(value or 0)
        if count > len(matches):
            raise TargetError(f"{count} were asked for, only {len(matches)} match")
    else:
        ceiling = max(1, math.floor(len(matches) * (value or 0.0)))
        count = ceiling if mode == "fixed-percent" else draw.randint(1, ceiling)
    if most is not None and count > most:
        raise TargetError(f"{count} would be hit, more than the {most} that `most` allows")
    chosen = sorted(draw.sample(range(len(matches)), count))
    return [matches[position] for position in chosen]
