"""The draws that decide: the same in every language, from a seed and the number of the request.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), indexed instead of stepped.
"""

from __future__ import annotations

__all__ = ["DRAWS", "draw"]

DRAWS = 3
"""So many draws belong to each request: is it hit, is it aborted, how long is it delayed."""
_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def draw(seed: int, number: int, which: int) -> float:
    """Draw `which` (0 to 2) of request `number` (from 0): within [0, 1), with 53 bits."""
    x = (seed + (DRAWS * number + which + 1) * _GAMMA) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((x ^ (x >> 31)) >> 11) * 2.0**-53
