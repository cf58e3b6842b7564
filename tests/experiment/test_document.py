"""A document becomes an experiment with every default said, and can be written back as it was meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.documents import DocumentError
from squall.experiment.document import dump_experiment, experiment_document, experiment_of_run, read_experiment
from squall.experiment.model import Experiment, FaultStep, Targets
from squall.faults import process, tcp
from squall.probes.spec import Secret
from squall.units import Duration, Ratio

if TYPE_CHECKING:
    from pathlib import Path

BLUEPRINT = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {name: inventory-is-slow}
spec:
  description: Orders keep flowing when inventory answers late.
  targets: {process: {command: shop-inventory}, mode: all}
  steadyState:
    - {name: orders, http: {url: "http://127.0.0.1:8080/orders", method: POST, body: {sku: a1}}, p95: 300ms, errorRate: 0.5%}
  tolerate: {p95: 1200ms, errorRate: 2%, exceptFor: 20s}
  abort: {errorRate: 50%, for: 5s}
  load: {http: {url: "http://127.0.0.1:8080/orders", method: POST, body: {sku: a1}}, rate: 50/s}
  faults:
    - {type: process.pause}
    - type: tcp.latency
      latency: 3s
      jitter: 100ms
      targets: {route: {listen: "127.0.0.1:8083", upstream: "127.0.0.1:9083"}}
      after: 10s
      pulse: {on: 2s, off: 8s}
  duration: 60s          # of the fault
  baseline: 10s          # watched before
  recovery: {within: 30s}
  seed: 7
"""

SMALLEST = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {name: smallest}
spec:
  targets: {process: {command: shop}}
  faults: [{type: process.pause}]
  duration: 20s
"""


def seconds(text: str) -> Duration:
    return Duration.parse(text)


def test_a_document_says_what_happens_where_and_when() -> None:
    experiment = read_experiment(BLUEPRINT)
    pause, latency = experiment.faults
    assert (experiment.name, experiment.seed, experiment.duration) == ("inventory-is-slow", 7, seconds("60s"))
    assert isinstance(pause.fault, process.Pause)
    assert isinstance(latency.fault, tcp.Latency)
    assert (latency.fault.latency, latency.fault.jitter, latency.fault.correlation) == (
        seconds("3s"),
        seconds("100ms"),
        0,
    )
    assert (latency.after, latency.duration) == (seconds("10s"), seconds("50s"))
    assert latency.pulse is not None
    assert (latency.pulse.on, latency.pulse.off) == (seconds("2s"), seconds("8s"))
    assert [step.targets.kind for step in experiment.faults] == ["process", "route"]
    assert experiment.steady_state[0].http is not None
    assert experiment.steady_state[0].http.body == {"sku": "a1"}
    assert experiment.load is not None
    assert experiment.load.rate == 50.0


def test_what_a_document_does_not_say_has_the_documented_defaults() -> None:
    experiment = read_experiment(SMALLEST)
    assert experiment.steady_state == ()
    assert experiment.load is None
    assert (experiment.tolerate.p95, experiment.tolerate.error_rate) == (seconds("1200ms"), Ratio.parse("2%"))
    assert (experiment.abort.p95, experiment.abort.error_rate) == (seconds("5s"), Ratio.parse("50%"))
    assert (experiment.abort.for_, experiment.abort.samples) == (seconds("5s"), 20)
    assert (experiment.recovery.within, experiment.baseline, experiment.seed) == (seconds("30s"), seconds("10s"), 0)
    (step,) = experiment.faults
    assert (step.after, step.duration, step.pulse) == (0, seconds("20s"), None)
    assert step.targets is experiment.targets
    assert (step.targets.mode, step.targets.follow) == (None, False)


@pytest.mark.parametrize(
    ("probe", "p95"),
    [
        ("http: {url: 'http://x'}", "300ms"),
        ("tcp: 'x:1'", "300ms"),
        ("command: 'true'", "300ms"),
        ("http: {url: 'http://x'}, p95: 2s", "2s"),
        ("http: {url: 'http://x'}, p95: null", None),
        ("process: {pid: 1}", None),
        ("prometheus: {url: 'http://x', query: up}", None),
    ],
)
def test_a_probe_with_a_latency_has_a_limit_for_it_unless_it_says_null(probe: str, p95: str | None) -> None:
    (expectation,) = read_experiment(f"{SMALLEST}  steadyState: [{{name: a, {probe}}}]").steady_state
    assert expectation.p95 == (None if p95 is None else seconds(p95))
    assert expectation.error_rate == Ratio.parse("0.5%")


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ("", "10s"),
        ("  tolerate: {exceptFor: 3s}\n", "3s"),
        ("  tolerate: {exceptFor: 19s}\n", "10s"),
        ("  tolerate: {exceptFor: 0s}\n", "0s"),
    ],
)
def test_the_exception_is_at_most_half_of_the_fault(more: str, taken: str) -> None:
    assert read_experiment(SMALLEST + more).tolerate.except_for == seconds(taken)


def test_the_exception_counts_the_time_in_which_any_fault_lasts_once() -> None:
    faults = "[{type: process.pause, duration: 4s}, {type: stress.cpu, after: 2s, duration: 4s}, "
    faults += "{type: stress.fd, after: 10s, duration: 2s}]"
    experiment = read_experiment(SMALLEST.replace("[{type: process.pause}]", faults))
    assert experiment.tolerate.except_for == seconds("4s")


def test_keys_may_be_said_to_be_nothing() -> None:
    experiment = read_experiment(SMALLEST + "  load:\n  steadyState: []\n")
    assert experiment == read_experiment(SMALLEST)


def test_a_yaml_on_is_a_key_and_not_true() -> None:
    text = SMALLEST.replace("process: {command: shop}", "route: {listen: 'a:1', upstream: 'b:2'}")
    experiment = read_experiment(text.replace("{type: process.pause}", "{type: http.delay, delay: 1s, on: response}"))
    assert experiment.faults[0].fault.parameters()["on"] == "response"


def test_anchors_and_merges_save_typing() -> None:
    text = SMALLEST + "  steadyState:\n    - &a {name: a, tcp: 'x:1', every: 2s}\n    - {<<: *a, name: b}\n"
    first, second = read_experiment(text).steady_state
    assert first.model_copy(update={"name": "b"}) == second


def test_a_document_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(SMALLEST)
    assert read_experiment(path) == read_experiment(SMALLEST)
    path.write_text(SMALLEST.replace("20s", "20"))
    with pytest.raises(DocumentError) as caught:
        read_experiment(path)
    assert str(caught.value).startswith(f"{path}:8:13: spec.duration: ")


def test_a_json_document_is_one_too() -> None:
    assert read_experiment(json.dumps(experiment_document(read_experiment(BLUEPRINT)))) == read_experiment(BLUEPRINT)


def test_the_document_of_a_run_is_read_with_what_the_engine_derived() -> None:
    """An ad-hoc fault may have no baseline; the probe that is derived for it would be refused in a person's document."""
    experiment = read_experiment(SMALLEST + "  baseline: 0s\n")
    (probe,) = read_experiment(SMALLEST + "  steadyState: [{name: a, tcp: 'x:1'}]\n").steady_state
    ran = experiment.model_copy(update={"steady_state": (probe,)})
    assert experiment_of_run(experiment_document(ran)) == ran
    with pytest.raises(DocumentError, match="too short to see the steady state"):
        read_experiment(json.dumps(experiment_document(ran)))


@pytest.mark.parametrize("document", [{}, {"apiVersion": "squall.dev/v9", "kind": "Experiment"}, {"spec": 3}])
def test_the_document_of_another_squalls_run_is_wrong_input(document: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        experiment_of_run(document)
    changed = experiment_document(read_experiment(SMALLEST))
    changed["spec"]["mood"] = "good"
    with pytest.raises(DocumentError, match=r"spec\.mood: is not known here"):
        experiment_of_run(changed)


def test_a_written_document_says_its_defaults_and_no_empty_keys() -> None:
    text = dump_experiment(read_experiment(SMALLEST))
    assert text.splitlines()[:6] == [
        "apiVersion: squall.dev/v1alpha1",
        "kind: Experiment",
        "metadata:",
        "  name: smallest",
        "spec:",
        "  targets:",
    ]
    assert "exceptFor: 10s" in text
    assert "null" not in text
    assert "{}" not in text
    assert text.count("command: shop") == 1, "a step that has the experiment's targets does not repeat them"


def test_a_secret_is_written_as_where_to_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    probe = "{name: a, http: {url: 'http://x', headers: {Authorization: {env: TOKEN, prefix: 'Bearer '}}}}"
    experiment = read_experiment(f"{SMALLEST}  steadyState: [{probe}]\n")
    assert experiment.steady_state[0].http is not None
    assert experiment.steady_state[0].http.headers["Authorization"] == Secret(env="TOKEN", prefix="Bearer ")
    assert "hunter2" not in dump_experiment(experiment)
    assert "env: TOKEN" in dump_experiment(experiment)


def test_an_experiment_made_in_python_has_the_same_shape() -> None:
    targets = Targets.model_validate({"process": {"command": "shop"}})
    step = FaultStep(fault=process.Pause(), targets=targets, duration=seconds("20s"))
    made = Experiment(name="smallest", targets=targets, duration=seconds("20s"), faults=(step,))
    assert made == read_experiment(SMALLEST)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_every_experiment_is_read_as_it_was_written(
    any_document: st.SearchStrategy[dict[str, Any]], data: st.DataObject
) -> None:
    experiment = read_experiment(json.dumps(data.draw(any_document)))
    assert read_experiment(dump_experiment(experiment)) == experiment
    assert read_experiment(json.dumps(experiment_document(experiment))) == experiment
    assert json.loads(json.dumps(experiment_document(experiment), allow_nan=False)) == experiment_document(experiment)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(data=st.data())
def test_an_experiment_cannot_be_changed_and_has_a_hash(
    any_document: st.SearchStrategy[dict[str, Any]], data: st.DataObject
) -> None:
    text = json.dumps(data.draw(any_document))
    experiment = read_experiment(text)
    assert hash(experiment) == hash(read_experiment(text))
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 1  # type: ignore[misc]  # that it cannot is what is tested
