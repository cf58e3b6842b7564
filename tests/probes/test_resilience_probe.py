"""The `resilience` probe against a real server that serves metrics, and the text that it reads."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from squall.probes.exposition import Metric, read_exposition
from squall.probes.registry import build
from squall.probes.resilience import pattern_values
from squall.probes.spec import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = """
# HELP resilience_breaker_state The state.
# TYPE resilience_breaker_state gauge
resilience_breaker_state{dependency="inventory",state="closed"} 0
resilience_breaker_state{dependency="inventory",state="half_open"} 1
resilience_breaker_state{dependency="inventory",state="open"} 0
resilience_breaker_state{dependency="other",state="open"} 1
resilience_breaker_transitions_total{dependency="inventory",from="closed",to="open",cause="error_rate"} 2
resilience_breaker_transitions_total{dependency="inventory",from="half_open",to="open",cause="trials_failed"} 3
resilience_breaker_transitions_total{dependency="inventory",from="open",to="half_open",cause="wait_over"} 5
resilience_retry_calls_total{dependency="inventory"} 100
resilience_retry_attempts_total{dependency="inventory"} 1.2e2
resilience_fallback_calls_total{dependency="inventory",answer="primary"} 10
resilience_fallback_calls_total{dependency="inventory",answer="preset"} 4
resilience_fallback_calls_total{dependency="inventory",answer="cached"} 5
resilience_fallback_calls_total{dependency="inventory",answer="none"} 1
something_else{with="a } brace",and="a \\" quote"} 3 1700000000000
"""


class _Serves(BaseHTTPRequestHandler):
    answer: tuple[int, str] = (200, METRICS)

    def do_GET(self) -> None:
        status, text = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, type[_Serves]]]:
    class Serves(_Serves):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Serves)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics", Serves
    server.shutdown()
    thread.join()
    server.server_close()


def look(url: str, dependency: str = "inventory") -> tuple[list[tuple[str, str, float]], str]:
    async def once() -> tuple[list[tuple[str, str, float]], str]:
        sampler = build(
            Probe.model_validate({"name": "p", "resilience": {"metrics": url, "dependency": dependency}}, by_name=True)
        )
        samples = await sampler.sample()
        await sampler.close()
        return [(one.series, one.outcome, one.value) for one in samples], sampler.last_failure

    return asyncio.run(once())


def test_what_the_patterns_of_a_dependency_say_is_published(service: tuple[str, type[_Serves]]) -> None:
    samples, _ = look(service[0])
    assert samples[0][:2] == ("p", "ok")
    assert {name.removeprefix("p."): value for name, outcome, value in samples[1:] if outcome == "value"} == {
        "open": 0.5, "opened": 5, "retryCalls": 100, "retryAttempts": 120, "primary": 10, "fellBack": 9, "unanswered": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "dependency", "why"),
    [
        ((200, METRICS), "nobody", "there are no metrics of patterns for 'nobody'"),
        ((503, "busy"), "inventory", "status 503 instead of metrics"),
        ((200, "<html>no metrics here</html>"), "inventory", "is no metric"),
        ((200, 'resilience_breaker_state{dependency="inventory" 1'), "inventory", "is no metric"),
    ],
)
def test_what_cannot_be_read_is_a_failed_sample_with_the_reason(
    service: tuple[str, type[_Serves]], answer: tuple[int, str], dependency: str, why: str
) -> None:
    service[1].answer = answer
    samples, failure = look(service[0], dependency)
    assert [outcome for _, outcome, _ in samples] == ["error"]
    assert why in failure


def test_a_dependency_without_a_pattern_has_no_value_of_it() -> None:
    assert pattern_values('resilience_retry_calls_total{dependency="x"} 3', "x") == {"retryCalls": 3}
    assert pattern_values('resilience_breaker_state{dependency="x",state="forced_open"} 1', "x") == {
        "open": 1,
        "opened": 0,
    }


def test_labels_may_hold_what_ends_them() -> None:
    (metric,) = read_exposition('a{b="x } y",c="q\\"uote",d="new\\nline",} 4.5e1 170000 # {trace_id="1"} 3')
    assert metric == Metric("a", {"b": "x } y", "c": 'q"uote', "d": "new\nline"}, 45)
    (bare,) = read_exposition("up 1")
    assert bare == Metric("up", {}, 1)
