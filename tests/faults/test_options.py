"""A fault's options: derived from its model, read back into it, with errors in an option's terms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import InputError
from squall.faults import FAULTS, parse_fault
from squall.faults.options import Option, fault_from_options, fault_options


def options(tag: str) -> dict[str, Option]:
    return {option.name: option for option in fault_options(FAULTS[tag])}


def test_what_is_required_comes_first_and_what_a_family_shares_last() -> None:
    found = fault_options(FAULTS["tcp.latency"])
    assert [option.name for option in found] == [
        "--latency", "--jitter", "--correlation", "--direction", "--percent",
        "--connections", "--ports", "--peers", "--established", "--descendants",
    ]  # fmt: skip
    assert [option.name for option in found if option.required] == ["--latency"]


def test_an_option_says_its_kind_its_default_and_its_meaning() -> None:
    assert options("tcp.latency")["--jitter"] == Option(
        "--jitter", "jitter", "text", "DURATION", required=False, default="0s", choices=(),
        help="The delay is drawn evenly from latency - jitter to latency + jitter, never below zero.",
    )  # fmt: skip
    found = options("http.patch")
    assert {name: (option.kind, option.metavar, option.repeated) for name, option in found.items()} == {
        "--on": ("choice", "request|response", False),
        "--set-headers": ("mapping", "KEY=VALUE", True),
        "--remove-headers": ("list", "TEXT", True),
        "--query": ("mapping", "KEY=VALUE", True),
        "--body": ("json", "JSON", False),
        "--method": ("text", "TEXT", False),
        "--path": ("text", "TEXT", False),
        "--headers": ("mapping", "KEY=VALUE", True),
        "--percent": ("text", "PERCENTAGE", False),
        "--connections": ("choice", "inbound|outbound", False),
        "--ports": ("list", "TEXT", True),
        "--peers": ("list", "TEXT", True),
        "--established": ("choice", "close|leave", False),
        "--descendants": ("flag", "", False),
    }
    assert found["--on"].choices == ("request", "response")
    assert options("process.kill")["--descendants"].kind == "flag"
    assert (options("stress.cpu")["--workers"].kind, options("stress.cpu")["--workers"].default) == ("number", "1")


@pytest.mark.parametrize("tag", sorted(FAULTS))
def test_every_option_has_a_help_text_and_a_name_of_its_own(tag: str) -> None:
    found = fault_options(FAULTS[tag])
    assert len({option.name for option in found}) == len(found) == len(FAULTS[tag].model_fields)
    for option in found:
        assert option.help
        assert "`" not in option.help
        assert option.name == "--" + option.field.replace("_", "-")


@pytest.mark.parametrize(
    ("tag", "given_options", "parameters"),
    [
        ("tcp.latency", {"latency": "3s", "jitter": None}, {"latency": "3s"}),
        ("tcp.down", {}, {}),
        ("process.kill", {"signal": "SIGTERM", "descendants": True}, {"signal": "SIGTERM", "descendants": True}),
        ("process.kill", {"descendants": False}, {}),
        ("stress.cpu", {"workers": "3", "load": "50%"}, {"workers": 3, "load": "50%"}),
        ("stress.cpu", {"workers": 3}, {"workers": 3}),
        ("http.abort", {"headers": ("X-A=b=c", "X-D=")}, {"headers": {"X-A": "b=c", "X-D": ""}}),
        ("http.abort", {"headers": ()}, {}),
        (
            "http.patch",
            {"on": "response", "remove_headers": ("ETag", "Age"), "body": '{"a": [1, null]}'},
            {"on": "response", "removeHeaders": ["ETag", "Age"], "body": {"a": [1, None]}},
        ),
        ("http.replace", {"on": "request", "new_path": "/x"}, {"on": "request", "newPath": "/x"}),
    ],
)
def test_options_make_the_fault_that_a_document_would(
    tag: str, given_options: dict[str, Any], parameters: dict[str, Any]
) -> None:
    assert fault_from_options(FAULTS[tag], given_options) == parse_fault(tag, parameters)


@pytest.mark.parametrize(
    ("tag", "given_options", "message"),
    [
        ("tcp.latency", {}, "--latency: is required"),
        ("tcp.latency", {"latency": "3"}, "--latency: '3' is not a duration: write it like 250ms, 1.5s, 1m30s"),
        ("tcp.latency", {"latency": "2h"}, "--latency: '2h' is out of range: 0s to 1h is allowed"),
        ("stress.cpu", {"workers": "many"}, "--workers: 'many' is not a whole number"),
        ("stress.cpu", {"workers": "1e3"}, "--workers: '1e3' is not a whole number"),
        ("http.abort", {"headers": ("X",)}, "--headers: 'X' is not KEY=VALUE"),
        ("http.abort", {"headers": ("=x",)}, "--headers: '=x' is not KEY=VALUE"),
        (
            "http.patch",
            {"on": "request", "body": "[1]"},
            "--body: a JSON merge patch is a mapping, such as {price: 0, discount: null}",
        ),
        ("http.patch", {"on": "request", "body": '{"a": NaN}'}, "--body: is not JSON: JSON has no NaN"),
        ("http.replace", {"on": "request", "status": "500"}, "a request has no status: say --on response"),
        ("http.replace", {"on": "request"}, "give at least one of --status, --new-path, --body, --set-headers"),
        (
            "process.pause",
            {"every": "1s"},
            "--stopped and --every belong together: give both, or neither for a pause without gaps",
        ),
        ("stress.disk", {"path": "/srv"}, "give --fill, --fill-percent or --write: what should happen to the disk?"),
    ],
)
def test_a_mistake_is_said_in_terms_of_its_option(tag: str, given_options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        fault_from_options(FAULTS[tag], given_options)
    assert str(caught.value) == message
    assert caught.value.exit_status == 2


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        fault_from_options(FAULTS["http.patch"], {"on": "sideways", "percent": "101%", "query": ("a",), "body": "{"})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "--query",
        "--body",
        "--percent",
        "--on",
    ]


TEXTS = st.text(max_size=6) | st.sampled_from(
    ["3s", "50%", "1MiB", "10mbit", "7", "a=b", "{}", '{"a":1}', "request", "/x"]
)


@pytest.mark.parametrize("tag", sorted(FAULTS))
@given(data=st.data())
def test_any_options_make_a_fault_or_an_input_error(tag: str, data: st.DataObject) -> None:
    given_options: dict[str, Any] = {}
    for option in fault_options(FAULTS[tag]):
        values: st.SearchStrategy[Any] = st.booleans() if option.kind == "flag" else TEXTS
        values = st.lists(TEXTS, max_size=2).map(tuple) if option.repeated else values
        given_options[option.field] = data.draw(st.none() | values)
    try:
        fault = fault_from_options(FAULTS[tag], given_options)
    except InputError as error:
        assert str(error)  # noqa: PT017 - only one of the two outcomes has a message
    else:
        assert fault.type == tag
