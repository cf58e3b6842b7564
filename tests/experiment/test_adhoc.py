"""One fault without a document has the same defaults and the same checks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from squall.errors import InputError
from squall.experiment.adhoc import adhoc
from squall.experiment.document import dump_experiment, read_experiment
from squall.experiment.model import Expectation, Recovery, Targets, Tolerate
from squall.faults import parse_fault
from squall.units import Duration

PROCESS = Targets.model_validate({"process": {"command": "shop"}})
ROUTE = Targets.model_validate({"route": {"listen": "a:1", "upstream": "b:2"}})


def test_one_fault_is_an_experiment_with_the_documents_defaults() -> None:
    made = adhoc(parse_fault("process.pause", {}), PROCESS, Duration.parse("20s"))
    text = (
        "{apiVersion: squall.dev/v1alpha1, kind: Experiment, metadata: {name: process.pause}, spec: "
        "{targets: {process: {command: shop}}, faults: [{type: process.pause}], duration: 20s}}"
    )
    assert made == read_experiment(text)
    assert read_experiment(dump_experiment(made)) == made


def test_a_fault_with_a_stroke_in_its_name_names_the_run_without() -> None:
    assert adhoc(parse_fault("tcp.slow_close", {"delay": "1s"}), ROUTE, Duration.parse("9s")).name == "tcp.slow-close"


def test_what_is_given_is_taken() -> None:
    expectation = Expectation.model_validate({"name": "page", "http": {"url": "http://x"}})
    made = adhoc(
        parse_fault("process.pause", {}), PROCESS, Duration.parse("20s"), name="mine", baseline=Duration.parse("5s"),
        expectations=[expectation], tolerate=Tolerate(except_for=Duration.parse("1h")),
        recovery=Recovery(within=Duration.parse("7s")), seed=9,
    )  # fmt: skip
    assert (made.name, made.baseline, made.seed, made.steady_state) == ("mine", Duration.parse("5s"), 9, (expectation,))
    assert made.recovery.within == Duration.parse("7s")
    assert made.tolerate.except_for == Duration.parse("10s"), "half of the fault's duration at most, as in a document"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Not A Name"}, "name: 'Not A Name' is not a name: lower-case letters"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"baseline": Duration.parse("2h")}, "baseline: '2h' is out of range: 0s to 1h is allowed"),
        ({"duration": Duration.parse("1ms")}, "duration: '1ms' is out of range: 100ms to 24h is allowed"),
        ({"targets": ROUTE}, "process.pause happens to a process, but its targets select a route"),
    ],
)
def test_what_does_not_fit_is_wrong_input(arguments: dict[str, object], message: str) -> None:
    given = {
        "fault": parse_fault("process.pause", {}),
        "targets": PROCESS,
        "duration": Duration.parse("20s"),
    } | arguments
    with pytest.raises(InputError) as caught:
        adhoc(**given)  # type: ignore[arg-type]  # a table of wrong arguments
    assert str(caught.value).startswith(message)
    assert caught.value.exit_status == 2


def test_the_model_needs_neither_the_network_nor_a_yaml_reader() -> None:
    """What is imported before it is needed costs every command its start."""
    heavy = "httpx2, h11, ruamel, click, rich, anyio, asyncio"
    code = f"import sys, squall.experiment.model; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
