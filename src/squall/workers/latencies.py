"""Histograms that a program in the kernel fills: eight buckets to each power of two nanoseconds."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from squall.kernel.bpf import Map

__all__ = ["BUCKETS", "Histograms", "bounds", "quantile"]

BUCKETS = 320
_EXACT = 8
_US = 1000


def bounds(bucket: int) -> tuple[int, int]:
    """The least and the first greater time in ns that a bucket counts, as bucket_of() in bpf/degrade.bpf.c has it."""
    if bucket < _EXACT:
        return bucket, bucket + 1
    power, eighth = bucket // 8 + 2, bucket % 8
    width = 1 << (power - 3)
    return (8 + eighth) * width, (9 + eighth) * width


def quantile(counts: Sequence[int], share: float) -> int:
    """The time in ns that this share of the counted did not exceed, to an eighth upwards; 0 when nothing was counted."""
    wanted, so_far = share * sum(counts), 0
    for bucket, count in enumerate(counts):
        so_far += count
        if count and so_far >= wanted:
            return bounds(bucket)[1]
    return 0


class Histograms:
    """Several histograms in one per-CPU map, and the longest time of each in another."""

    def __init__(self, took: Map, longest: Map, names: Sequence[str]) -> None:
        self._took, self._longest, self._names = took, longest, tuple(names)

    def read(self) -> Mapping[str, int]:
        """p50, p99 and the longest time of each in whole microseconds, by `NAME_p50_us` and so on; empty ones are left out."""
        found: dict[str, int] = {}
        for number, name in enumerate(self._names):
            longest = max(_each(self._longest, number))
            if not longest:
                continue
            counts = [self._took.total(number * BUCKETS + bucket) for bucket in range(BUCKETS)]
            for text, share in (("p50", 0.5), ("p99", 0.99)):
                found[f"{name}_{text}_us"] = round(min(quantile(counts, share), longest) / _US)
            found[f"{name}_max_us"] = round(longest / _US)
        return found


def _each(per_cpu: Map, index: int) -> tuple[int, ...]:
    raw = per_cpu[struct.pack("<I", index)]
    return struct.unpack(f"<{len(raw) // 8}Q", raw)
