"""The one compact file of a run's measurements, `samples.bin`, written by the engine alone and read by everyone.

The first line is JSON: `{"squall-samples": 1, "series": [...]}`. Then fixed records of 32 bytes (`RECORD`), in order of
arrival. A request's time is when it was *meant* to be sent, and its latency counts from there (no coordinated omission:
Gil Tene, "How NOT to measure latency"). A torn last record (the writer was killed) is ignored.
"""

from __future__ import annotations

import json
import struct
from array import array
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from squall.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["OUTCOMES", "Outcome", "Sample", "SampleWriter", "Series", "read_samples"]

VERSION = 1
RECORD = struct.Struct("<qqdHHI")
"""time_ns, latency_ns, value, series, outcome, detail."""

Outcome = Literal["ok", "error", "timeout", "refused", "unsent", "value"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "error", "timeout", "refused", "unsent", "value")
"""`value` is a gauge (rss, cpu, a query's answer), not a request; all but `ok` and `value` are errors."""


class Sample(NamedTuple):
    """One measurement.

    `time_ns` CLOCK_MONOTONIC, for a request the intended send time; `latency_ns` from then to the end of the answer (0
    for a value); `value` the gauge's (0.0 for a request); `detail` the HTTP status, exit status or errno (0: none);
    `span` the id of its span where that is recorded in the run's trace (0: it is not), which is not kept in the file.
    """

    series: str
    time_ns: int
    latency_ns: int
    outcome: Outcome
    value: float = 0.0
    detail: int = 0
    span: int = 0


@dataclass(slots=True)
class Series:
    """The samples of one name, as columns of equal length, in order of arrival (not always of time)."""

    name: str
    time_ns: array[int] = field(default_factory=lambda: array("q"))
    latency_ns: array[int] = field(default_factory=lambda: array("q"))
    value: array[float] = field(default_factory=lambda: array("d"))
    outcome: array[int] = field(default_factory=lambda: array("H"))
    """Index into OUTCOMES."""
    detail: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self.time_ns)

    def add(self, sample: Sample) -> None:
        """Append one sample of this series."""
        self.time_ns.append(sample.time_ns)
        self.latency_ns.append(sample.latency_ns)
        self.value.append(sample.value)
        self.outcome.append(OUTCOMES.index(sample.outcome))
        self.detail.append(sample.detail)

    def __iter__(self) -> Iterator[Sample]:
        for row in zip(self.time_ns, self.latency_ns, self.outcome, self.value, self.detail, strict=True):
            time_ns, latency_ns, outcome, value, detail = row
            yield Sample(self.name, time_ns, latency_ns, OUTCOMES[outcome], value, detail)


class SampleWriter:
    """Appends samples to the run's file; the names of all series are given beforehand.

    A gauge's series is `<probe>.<value>` ("stock.rss"). Errors: OSError where the disk is full; KeyError for a series
    that was not named.
    """

    def __init__(self, path: Path, series: Sequence[str]) -> None:
        self._index = {name: number for number, name in enumerate(series)}
        self._file: IO[bytes] = path.open("xb")
        self._file.write(json.dumps({"squall-samples": VERSION, "series": list(series)}).encode() + b"\n")
        self._file.flush()

    def write(self, samples: Iterable[Sample]) -> None:
        """Append; buffered until `flush`."""
        pack, index = RECORD.pack, self._index
        self._file.write(
            b"".join(
                pack(s.time_ns, s.latency_ns, s.value, index[s.series], OUTCOMES.index(s.outcome), s.detail)
                for s in samples
            )
        )

    def flush(self) -> None:
        """Hand what was written to the kernel: it outlives this process."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close; harmless when closed."""
        self._file.close()


def read_samples(path: Path) -> dict[str, Series]:
    """All series of a run by name, those without samples too; JournalError for a file of a newer version or another kind."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline(1 << 20))
            version, names = header["squall-samples"], header["series"]
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{path} is not a file of samples") from error
        if version != VERSION:
            raise JournalError(f"{path} was written by a newer Squall (format {version}, this one reads {VERSION})")
        data = file.read()
    series = {name: Series(name) for name in names}
    columns = list(series.values())
    for time_ns, latency_ns, value, number, outcome, detail in RECORD.iter_unpack(
        data[: len(data) - len(data) % RECORD.size]
    ):
        if number >= len(columns) or outcome >= len(OUTCOMES):
            raise JournalError(f"{path} is damaged: a record of series {number}, outcome {outcome}")
        column = columns[number]
        column.time_ns.append(time_ns)
        column.latency_ns.append(latency_ns)
        column.value.append(value)
        column.outcome.append(outcome)
        column.detail.append(detail)
    return series
