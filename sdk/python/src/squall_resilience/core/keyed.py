"""A bucket for each key, in bounded memory, so that no key ever gets more than its own bucket gives.

The most recently used keys are in a table. A key that falls out of it leaves, if its bucket is not full, how empty it
is in a sketch: cells of several rows, one cell of each row by a secret hash of the key, each holding the emptiest of
what fell into it. A key that comes (back) begins as full as its fullest cell says, which is never fuller than it was:
its cells hold at least what it left there. (A count-min sketch, Cormode and Muthukrishnan 2005, of maxima for sums.)

So who floods the table with keys cannot refill anybody's bucket, his own least of all. (That every new key has a burst of
its own no limit by key can help.) What he can do is use up cells, so that keys which are not in the table begin less full:
it takes more new keys a second than there are cells in a row times the rate, for as long as he goes on and one bucket's time
longer, and since the hash is secret he cannot choose whom he hits. Keys in the table, and those with a rate of their own,
feel nothing. With 10,000 keys kept and 10 calls a second for each, that is 650,000 new keys a second; with 5 calls an
hour it is 90, which asks for more keys to be kept. Keys that outsiders choose should be texts: their hash is secret too.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING

from squall_resilience.core.bucket import Rate, taken

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

__all__ = ["KeyedBuckets"]

ROWS = 3
CELLS_A_KEY = 4
"""In each row, for each key of the table."""
KEY_LENGTH_MAX = 128
"""Longer texts are kept as a digest: a key's length is the caller's choice, the memory is not."""
_NEVER = float("-inf")


class KeyedBuckets:
    """Buckets by key; at most `keys_max` of them, and a sketch of the others."""

    def __init__(self, rate: Rate, keys_max: int, own: Mapping[Hashable, Rate]) -> None:
        self.rate = rate
        self.keys_max = keys_max
        self.own = dict(own)
        """Rates of certain keys; their buckets are always kept."""
        self.kept: dict[Hashable, float] = {}
        self.table: OrderedDict[Hashable, float] = OrderedDict()
        self._salt = random.SystemRandom().getrandbits(64)
        self._sketch = self._cells(keys_max)

    @staticmethod
    def _cells(keys_max: int) -> array[float]:
        width = 1 << (CELLS_A_KEY * keys_max - 1).bit_length()
        return array("d", [_NEVER]) * (ROWS * width)

    def __len__(self) -> int:
        return len(self.table) + len(self.kept)

    def take(self, key: Hashable, now: float, patience: float = 0.0) -> float:
        """Take a token of this key's bucket: seconds to wait for it, negative when that is more than `patience`."""
        key = self._short(key)
        rate = self.own.get(key)
        if rate is not None:
            self.kept[key], wait = taken(self.kept.get(key, _NEVER), now, rate, patience)
            return wait
        full_at = self.table.get(key)
        if full_at is None:
            full_at = min(self._sketch[place] for place in self._places(key))
            if len(self.table) >= self.keys_max:
                self._evict(now)
        self.table[key], wait = taken(full_at, now, self.rate, patience)
        self.table.move_to_end(key)
        return wait

    def full_at(self, key: Hashable) -> float:
        """When this key's bucket is full, as far as it is kept exactly."""
        key = self._short(key)
        return self.kept.get(key, self.table.get(key, _NEVER))

    def give_back(self, key: Hashable, full_at: float) -> bool:
        """Give back a token that is not needed, if nobody has taken one since; `full_at` is as it was after taking."""
        key = self._short(key)
        for buckets, rate in ((self.kept, self.own.get(key, self.rate)), (self.table, self.rate)):
            if buckets.get(key) == full_at:
                buckets[key] = full_at - rate.interval
                return True
        return False

    def configure(self, rate: Rate, keys_max: int, own: Mapping[Hashable, Rate], now: float) -> None:
        """Other rates and bounds: as many tokens are missing from each bucket as before, up to all."""
        missing = {
            key: max(0.0, full_at - now) / self.own.get(key, self.rate).interval
            for key, full_at in (*self.table.items(), *self.kept.items())
        }
        before = self.rate.interval
        self.rate, self.keys_max, self.own = rate, keys_max, dict(own)
        self.table.clear()
        self.kept.clear()
        old, self._sketch = self._sketch, self._cells(keys_max)
        if len(old) == len(self._sketch):
            self._sketch = array("d", (self._full_at((each - now) / before, rate, now) for each in old))
        else:  # cells cannot be dealt out anew without their keys: none gets fuller by it
            self._sketch = array("d", [self._full_at((max(old) - now) / before, rate, now)]) * len(self._sketch)
        for key, tokens in missing.items():
            if key in self.own:
                self.kept[key] = self._full_at(tokens, self.own[key], now)
            else:
                self.table[key] = self._full_at(tokens, rate, now)
        while len(self.table) > keys_max:
            self._evict(now)

    @staticmethod
    def _full_at(missing: float, rate: Rate, now: float) -> float:
        return now + min(missing * rate.interval, rate.reach) if missing > 0 else _NEVER

    @staticmethod
    def _short(key: Hashable) -> Hashable:
        if not isinstance(key, (str, bytes)) or len(key) <= KEY_LENGTH_MAX:
            return key
        whole = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        return type(key), hashlib.blake2b(whole, digest_size=16).digest()

    def _places(self, key: Hashable) -> tuple[int, ...]:
        width = len(self._sketch) // ROWS
        mixed = hash((self._salt, key))
        return tuple(row * width + ((mixed >> (21 * row)) & (width - 1)) for row in range(ROWS))

    def _evict(self, now: float) -> None:
        key, full_at = self.table.popitem(last=False)
        if full_at > now:
            for place in self._places(key):
                self._sketch[place] = max(self._sketch[place], full_at)
