"""The file of samples: what was written is read, a torn end is ignored, anything else is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.errors import JournalError
from squall.probes.samples import OUTCOMES, RECORD, Sample, SampleWriter, read_samples

if TYPE_CHECKING:
    from pathlib import Path

HEADER = b'{"squall-samples": 1, "series": ["a", "b.rss"]}\n'
SAMPLES = st.builds(
    Sample, st.sampled_from(["a", "b.rss"]), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.sampled_from(OUTCOMES),
    st.floats(allow_nan=False), st.integers(0, 2**32 - 1),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples=st.lists(SAMPLES, max_size=20), torn=st.integers(0, 31))
def test_what_was_written_is_read_whatever_was_torn_off_after_it(
    tmp_path: Path, samples: list[Sample], torn: int
) -> None:
    path = tmp_path / "samples.bin"
    path.unlink(missing_ok=True)
    writer = SampleWriter(path, ["a", "b.rss"])
    writer.write(samples)
    writer.flush()
    writer.close()
    with path.open("ab") as file:
        file.write(b"\xff" * torn)
    read = read_samples(path)
    assert list(read) == ["a", "b.rss"]
    for name, series in read.items():
        assert list(series) == [sample._replace(span=0) for sample in samples if sample.series == name]
        assert len(series) == sum(sample.series == name for sample in samples)


def test_a_series_that_was_not_named_is_refused(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path / "samples.bin", ["a"])
    with pytest.raises(KeyError):
        writer.write([Sample("b", 0, 0, "ok")])
    writer.close()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not a file of samples"),
        (b"[]\n", "is not a file of samples"),
        (b"\xff\n", "is not a file of samples"),
        (b'{"squall-samples": 2, "series": []}\n', "was written by a newer Squall"),
        (HEADER + RECORD.pack(0, 0, 0.0, 2, 0, 0), "is damaged: a record of series 2"),
        (HEADER + RECORD.pack(0, 0, 0.0, 0, 99, 0), "is damaged: .* outcome 99"),
    ],
)
def test_what_is_no_file_of_samples_says_so(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "samples.bin"
    path.write_bytes(data)
    with pytest.raises(JournalError, match=says):
        read_samples(path)
