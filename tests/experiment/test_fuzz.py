"""Whatever a file holds, reading it gives an experiment or a DocumentError: no traceback, in bounded time."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from squall.documents import DocumentError
from squall.experiment.document import dump_experiment, read_experiment
from squall.experiment.schema import document_schema

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = Draft202012Validator(document_schema())

WORDS = [
    "3",
    "3 sec",
    "-1s",
    "1e999s",
    "0s",
    "1ns",
    "25h",
    "100%",
    "x",
    "all",
    "on",
    "http://x",
    "a:1",
    "[::1]:2",
    "\u0663s",
]
NUMBERS = [None, True, False, 0, -1, 1, 3, 2**70, 1.5, -0.0, 1e308]
SHAPED: list[Any] = [
    {},
    [],
    [[]],
    {"a": {}},
    {"type": "tcp.down"},
    {"route": {"listen": "a:1", "upstream": "b:2"}},
    {"pid": 1},
]
JUNK = st.recursive(
    st.sampled_from(
        [*NUMBERS, *WORDS, "process.pause", "tcp.down", "\U0001f300", "squall.dev/v1alpha1", "", " ", *SHAPED]
    )
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["type", "targets", "after", "duration", "pulse", "name", "spec", "faults", "latency", "process", "pid", "mode", "value",
     "http", "p95", "values", "every", "load", "rate", "profile", "for", "seed", "extra", "errorRate", "fault", "container", ""]
)  # fmt: skip

SHAPES = (
    "is not known here", "is missing", "must be", "does not have the right form", "is not allowed here", "has no unit",
    "is not a duration", "is not a percentage", "is not a rate", "is not a size", "is not a bandwidth", "faults; 1 to",
    "is too short: at least", "is too long: at most", "exactly one of", "there is no kind", "not in this version", "is not a name",
    "either `env` or `file`",
)  # fmt: skip
"""What is said of a mistake that a schema can see, too."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        found += places(item, (*path, key))
    return found


def mutate(document: Any, draw: st.DataObject) -> Any:
    """The document with one value replaced, removed, doubled, or one key added."""
    path = draw.draw(st.sampled_from(places(document)))
    if not path:
        return document
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    how = draw.draw(st.sampled_from(["replace", "remove", "add", "misspell"]))
    if how == "replace" or (how != "remove" and not isinstance(holder, dict)):
        holder[path[-1]] = draw.draw(JUNK)
    elif how == "remove":
        del holder[path[-1]]
    elif how == "add":
        holder[draw.draw(KEYS)] = draw.draw(JUNK)
    else:
        holder[path[-1] + draw.draw(st.sampled_from("xs_"))] = holder.pop(path[-1])
    return changed


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=400)
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused_and_the_schema_agrees(
    any_document: st.SearchStrategy[dict[str, Any]], data: st.DataObject
) -> None:
    document: Any = data.draw(any_document)
    for _ in range(data.draw(st.integers(1, 3))):
        document = mutate(document, data)
    try:
        experiment = read_experiment(json.dumps(document), "e.yaml")
    except DocumentError as error:
        for problem in error.problems:
            assert problem.place.file == "e.yaml"
            assert "pydantic" not in str(problem).lower()
            assert "validator" not in str(problem)
            assert "Traceback" not in str(problem)
        said = [problem.what for problem in error.problems]
        if any(shape in what for what in said for shape in SHAPES):
            assert not SCHEMA.is_valid(document), said
    else:
        assert SCHEMA.is_valid(document), [error.message for error in SCHEMA.iter_errors(document)]
        assert read_experiment(dump_experiment(experiment)) == experiment


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=300) | st.text("{}[]:,-&*!|>'\"%@`#? \n\tab1~<", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DocumentError):
        read_experiment(text)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_text_is_read_or_refused(data: st.DataObject) -> None:
    text = (
        "apiVersion: squall.dev/v1alpha1\nkind: Experiment\nmetadata: {name: it}\nspec:\n  duration: 20s\n"
        "  targets: {process: {command: shop}}\n  faults:\n    - {type: process.pause, after: 3s}\n"
    )
    at, length = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 9))
    damaged = text[:at] + data.draw(st.text(max_size=4)) + text[at + length :]
    with contextlib.suppress(DocumentError):
        read_experiment(damaged)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(DocumentError):
        read_experiment(path)


@pytest.mark.slow
def test_hostile_documents_are_refused_quickly() -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(12)
    )
    head = "apiVersion: squall.dev/v1alpha1\nkind: Experiment\nmetadata: {name: a}\nspec:"
    hostile = [
        laughs,
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "a: &a [*a]",
        "x" * 2_000_000,
        "spec: {duration: " + "9" * 100_000 + "}",
        "apiVersion: " + "v" * 500_000,
        "apiVersion: squall.dev/v1alpha1\nkind: " + "E" * 500_000,
        head + "\n  faults:\n" + "    - {type: tcp.down}\n" * 9000,
        head + " {" + ", ".join(f"k{n}: 1" for n in range(9000)) + "}",
        head + " {" + "n" * 300_000 + ": 1}",
    ]
    for text in hostile:
        began = time.monotonic()
        with contextlib.suppress(DocumentError):
            read_experiment(text)
            raise AssertionError("a hostile document was taken for an experiment")
        assert time.monotonic() - began < 20
