"""A run's trace, and what its requests carry of it (W3C Trace Context)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.probes.traceparent import SPANS_A_RUN, SPANS_A_SECOND, RunTrace, marked

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_run_is_part_of_its_callers_trace() -> None:
    trace = RunTrace.of("run-1", CALLER)
    assert trace.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert trace.parent_id == "b7ad6b7169203331"
    assert re.fullmatch(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", trace.traceparent)


@pytest.mark.parametrize(
    "caller",
    [
        "", "nonsense", CALLER.upper(), CALLER + "-more", CALLER[:-1], "ff" + CALLER[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)  # fmt: skip
def test_a_caller_that_is_not_valid_is_passed_over(caller: str) -> None:
    trace = RunTrace.of("run-1", caller)
    assert trace == RunTrace.of("run-1")
    assert trace.parent_id == ""


def test_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    assert RunTrace.of("run-1", "01" + CALLER[2:] + "-what-comes-later").parent_id == "b7ad6b7169203331"


def test_two_runs_are_two_traces() -> None:
    assert RunTrace.of("run-1").trace_id != RunTrace.of("run-2").trace_id
    assert RunTrace.of("run-1") == RunTrace.of("run-1")


@given(rate=st.floats(0.01, 100_000), seconds=st.floats(0.1, 100_000), key=st.integers(0, 2**32))
def test_what_is_recorded_is_bounded_and_both_ends_agree(rate: float, seconds: float, key: int) -> None:
    marks = RunTrace.of(f"run-{key}").marks("load", rate, seconds)
    assert marks.share * rate <= SPANS_A_SECOND * 1.001
    assert marks.share * rate * seconds <= SPANS_A_RUN * 1.001 or rate * seconds < 1
    for time_ns in range(key, key + 50):
        header = marks.header(time_ns).decode()
        found = re.fullmatch(r"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])\r\n", header)
        assert found is not None
        assert found[1] == marks.trace_id
        assert marks.span(time_ns) == (int(found[2], 16) if found[3] == "1" else 0)
        assert int(found[2], 16)


def test_the_share_that_is_recorded_is_as_asked_and_no_span_comes_twice() -> None:
    marks = RunTrace.of("run-1").marks("load", 100.0, 20.0)
    spans = [marks.span(time_ns * 10_000_000) for time_ns in range(20_000)]
    assert marks.share == pytest.approx(0.1)
    assert 0.08 < sum(map(bool, spans)) / len(spans) < 0.12
    assert len({span for span in spans if span}) == sum(map(bool, spans))


def test_a_request_has_one_more_header_and_is_otherwise_the_same() -> None:
    request = b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n\r\n"
    header = RunTrace.of("run-1").marks("load", 1.0, 1.0).header(7)
    assert marked(request, header).replace(header, b"") == request
    assert marked(request, header).startswith(b"POST /a HTTP/1.1\r\ntraceparent: 00-")
