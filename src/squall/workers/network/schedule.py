"""When each packet of a delay line leaves it: the definitions of tc-netem(8), without any input or output.

Draws are 32-bit numbers as netem's; the n-th is the same in every run with the same seed. One thing differs: netem takes
a draw modulo the width of the jitter, which in nanoseconds wraps many times and so loses the correlation that was asked
for; here a draw is scaled to the width.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

__all__ = ["LIMIT_BYTES", "LIMIT_PACKETS", "Draws", "Rate", "Reorder", "Schedule", "Shape"]

T = TypeVar("T")

LIMIT_PACKETS = 100_000
LIMIT_BYTES = 256 << 20
"""What a line holds at most unless told otherwise; netem's own default of 1000 packets drops at 3 s and 400 packets/s."""
_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Reorder:
    """A packet overtakes those that are held: it leaves at once. `share` of the candidates do; `gap` n: each n-th is one."""

    share: float
    correlation: float = 0.0
    gap: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many bytes a second, all together or each flow for itself; `overhead` bytes are added to each packet."""

    bytes_per_s: int
    per_flow: bool = False
    overhead: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a line does to its packets. Times in ns, shares and correlations 0 to 1."""

    latency_ns: int = 0
    jitter_ns: int = 0
    correlation: float = 0.0
    distribution: Literal["uniform", "normal"] = "uniform"
    reorder: Reorder | None = None
    rate: Rate | None = None
    limit_packets: int = LIMIT_PACKETS
    limit_bytes: int = LIMIT_BYTES

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` gave; names that are missing have their defaults."""
        fields = dict(data)
        for name, kind in (("reorder", Reorder), ("rate", Rate)):
            if fields.get(name) is not None:
                fields[name] = kind(**fields[name])
        return cls(**fields)


class Draws:
    """netem's get_crandom: each draw is (1 - rho) of a fresh one and rho of the one before. 0 <= draw < 2**32."""

    def __init__(self, rho: float, source: random.Random) -> None:
        self._rho = min(_WHOLE - 1, int(rho * (_WHOLE - 1) + 0.5))
        self._source = source
        self._last = source.getrandbits(32) if self._rho else 0

    def next(self) -> int:
        """The next draw."""
        value = self._source.getrandbits(32)
        if self._rho == 0:
            return value
        rho = self._rho + 1
        self._last = (value * (_WHOLE - rho) + self._last * rho) >> 32
        return self._last


@dataclass(slots=True)
class Tally:
    """What became of the packets."""

    held: int = 0
    reordered: int = 0
    overflowed: int = 0


@dataclass(slots=True)
class Schedule(Generic[T]):
    """A bounded queue of what is held, by the time at which each leaves. Not for several threads."""

    shape: Shape
    seed: int = 0
    tally: Tally = field(default_factory=Tally)
    _queue: list[tuple[int, int, int, T]] = field(default_factory=list)
    _bytes: int = 0
    _number: int = 0
    _passed: int = 0
    """How many were held since the last one that overtook (netem's `counter`)."""
    _last_ns: dict[Hashable, int] = field(default_factory=dict)
    """When the last packet of each flow leaves; the key None stands for all together."""
    _delays: Draws = field(init=False)
    _reorders: Draws = field(init=False)
    _normal: Callable[[float], float] | None = field(init=False)
    """The inverse of the normal distribution, where it is asked for: it is dear to import."""

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        shape = self.shape
        self._delays = Draws(shape.correlation, random.Random(f"{self.seed}:delay"))  # noqa: S311 - replayed, not a secret
        self._normal = None
        if shape.distribution == "normal":
            from statistics import NormalDist

            self._normal = NormalDist().inv_cdf
        share = shape.reorder.correlation if shape.reorder is not None else 0.0
        self._reorders = Draws(share, random.Random(f"{self.seed}:reorder"))  # noqa: S311

    def __len__(self) -> int:
        return len(self._queue)

    def become(self, shape: Shape) -> None:
        """Treat what comes from now on like this; what is held already leaves when it was to."""
        self.shape = shape
        self._begin()

    @property
    def next_ns(self) -> int | None:
        """When the next one leaves; None while nothing is held."""
        return self._queue[0][0] if self._queue else None

    def put(self, item: T, size: int, now_ns: int, *, flow: Hashable = None, extra_ns: int = 0) -> bool:
        """Take a packet of so many bytes; False: the queue is full, and the packet is lost.

        `extra_ns` is held in addition to what the shape says (a policy of the packet's own).
        """
        shape = self.shape
        if len(self._queue) >= shape.limit_packets or self._bytes + size > shape.limit_bytes:
            self.tally.overflowed += 1
            return False
        when = 0 if self._overtakes() else self._leaves_ns(size, now_ns, flow) + extra_ns
        self._number += 1
        heappush(self._queue, (when, self._number, size, item))
        self._bytes += size
        self.tally.held += 1
        return True

    def take(self, now_ns: int) -> T | None:
        """The next packet that is due; None when there is none."""
        queue = self._queue
        if not queue or queue[0][0] > now_ns:
            return None
        _, _, size, item = heappop(queue)
        self._bytes -= size
        return item

    def _overtakes(self) -> bool:
        reorder = self.shape.reorder
        if reorder is None:
            return False
        if self._passed >= reorder.gap - 1 and self._reorders.next() <= int(reorder.share * (_WHOLE - 1)) > 0:
            self._passed = 0
            self.tally.reordered += 1
            return True
        self._passed += 1
        return False

    def _leaves_ns(self, size: int, now_ns: int, flow: Hashable) -> int:
        delay, rate = self._delay_ns(), self.shape.rate
        if rate is None:
            return now_ns + max(0, delay)
        key = flow if rate.per_flow else None
        last = self._last_ns.get(key, 0)
        if last > now_ns:  # the time that it waits behind others counts towards its delay
            delay -= last - now_ns
            now_ns = last
        leaves = now_ns + max(0, delay) + (size + rate.overhead) * 1_000_000_000 // rate.bytes_per_s
        if len(self._last_ns) > 2 * self.shape.limit_packets:  # those with nothing in the queue would begin anew anyway
            self._last_ns = {name: when for name, when in self._last_ns.items() if when > now_ns}
        self._last_ns[key] = leaves
        return leaves

    def _delay_ns(self) -> int:
        shape = self.shape
        if shape.jitter_ns == 0:
            return shape.latency_ns
        draw = self._delays.next()
        if self._normal is not None:
            return shape.latency_ns + round(self._normal((draw + 0.5) / _WHOLE) * shape.jitter_ns)
        return shape.latency_ns - shape.jitter_ns + (draw * 2 * shape.jitter_ns >> 32)
