"""Which expectation takes a call: conditions, order, counts; and why a call is not expected."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.standins import Call, Match
from squall.standins.matching import Book, Refusal, Turn, differences, holds
from squall.standins.script import parse_script


def call(method: str = "GET", path: str = "/", body: bytes = b"", query: str = "", **headers: str) -> Call:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    fields = tuple((name, value) for name, _, value in (each.partition("=") for each in query.split("&") if each))
    return Call(0, 0.0, method, path, fields, pairs, body)


@dataclass
class Taken:
    """A script's book, and who took each call."""

    script: object
    book: Book = field(init=False)

    def __post_init__(self) -> None:
        self.book = Book(parse_script(self.script))  # type: ignore[arg-type]

    def by(self, path: str, method: str = "GET") -> str:
        decision = self.book.decide(call(method, path))
        return decision.expectation if isinstance(decision, Turn) else f"({decision.reason})"


@pytest.mark.parametrize(
    ("match", "given", "differs"),
    [
        ({}, call("PUT", "/any"), ""),
        ({"method": "get"}, call("GET"), ""),
        ({"method": "GET"}, call("POST"), "method is POST, not GET"),
        ({"path": "/items/{id}"}, call(path="/items/3"), ""),
        ({"path": "/items/{id}"}, call(path="/items/3/x"), "path is /items/3/x, not /items/{id}"),
        ({"path": "/items/{id}"}, call(path="/items/"), "path is /items/, not /items/{id}"),
        ({"path": "/a/{x}/b/{y}"}, call(path="/a/1/b/2"), ""),
        ({"path": "/files/*"}, call(path="/files/a/b.txt"), ""),
        ({"path": "*.txt"}, call(path="/files/a/b.txt"), ""),
        ({"path": "/a*b*c"}, call(path="/a1b2b3c"), ""),
        ({"path": "/a.c"}, call(path="/abc"), "path is /abc, not /a.c"),
        ({"query": {"page": 1}}, call(query="page=1&x=2"), ""),
        ({"query": {"page": 1}}, call(query="page=2&page=1"), ""),
        ({"query": {"page": 1}}, call(query="page=2"), "query parameter page is '2', not '1'"),
        ({"query": {"q": "*"}}, call(), "query parameter q is missing"),
        ({"headers": {"X-Trace": "a*"}}, call(x_trace="abc"), ""),
        ({"headers": {"X-Trace": "a*"}}, call(x_trace="b"), "header x-trace is 'b', not 'a*'"),
        ({"body": "sku=*"}, call(body=b"sku=a1\n"), ""),
        ({"body": "sku"}, call(body=b"sku=a1"), "body is 'sku=a1', not 'sku'"),
        ({"json": {"a": {"b": 1}}}, call(body=b'{"a": {"b": 1, "c": 2}, "d": 3}'), ""),
        ({"json": {"a": {"b": 1}}}, call(body=b'{"a": {"b": 2}}'), "json.a.b is 2, not 1"),
        ({"json": {"a": 1}}, call(body=b'{"a": true}'), "json.a is true, not 1"),
        ({"json": {"a": 1}}, call(body=b"{}"), "json.a is missing"),
        ({"json": {"a": 1}}, call(body=b"[1]"), "json is [1], not a mapping"),
        ({"json": [1, {"a": 2}]}, call(body=b'[1, {"a": 2, "b": 3}]'), ""),
        ({"json": [1]}, call(body=b"[1, 2]"), "json is [1, 2], not a list of 1"),
        ({"json": {"a": 1}}, call(body=b"{x"), "body is no JSON"),
        ({"json": {"a": 1}}, call(body=b"[" * 100_000), "body is no JSON"),
    ],
)
def test_a_call_matches_when_nothing_differs(match: dict[str, object], given: Call, differs: str) -> None:
    assert "; ".join(differences(Match.model_validate(match), given)) == differs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(json_values)
def test_every_json_value_holds_itself(value: object) -> None:
    assert holds(value, json.loads(json.dumps(value)), "json") == []


@given(st.dictionaries(st.text(max_size=3), json_values, min_size=1))
def test_a_mapping_holds_what_is_left_when_a_key_goes_but_not_the_other_way(value: dict[str, object]) -> None:
    fewer = dict(list(value.items())[1:])
    assert holds(fewer, value, "json") == []
    assert holds(value, fewer, "json") != []


def test_a_pattern_of_many_stars_is_no_way_to_stop_the_server() -> None:
    match = Match.model_validate({"path": "/" + "*a" * 40 + "*b"})
    began = time.monotonic()
    assert differences(match, call(path="/" + "a" * 20_000))
    assert time.monotonic() - began < 5


def test_the_first_that_matches_and_is_not_used_up_takes_the_call() -> None:
    taken = Taken([
        {"name": "once", "match": {"path": "/a"}, "answer": {}, "calls": 1},
        {"name": "then", "match": {"path": "/*"}, "answer": {}, "atMost": 2},
    ])  # fmt: skip
    assert [taken.by("/a") for _ in range(3)] == ["once", "then", "then"]
    assert taken.by("/a") == "('once' has had its 1 call; 'then' has had its 2 calls)"


def test_in_order_each_waits_for_those_before_it() -> None:
    taken = Taken({
        "inOrder": True,
        "expectations": [
            {"name": "login", "match": {"path": "/login"}, "answer": {}, "calls": 1},
            {"name": "maybe", "match": {"path": "/maybe"}, "answer": {}, "atLeast": 0},
            {"name": "work", "match": {"path": "/work"}, "answer": {}},
            {"name": "logout", "match": {"path": "/logout"}, "answer": {}, "calls": 1},
        ],
    })  # fmt: skip
    assert taken.by("/work") == "(it is not the turn of 'work': 'login' comes first)"
    assert taken.by("/login") == "login"
    assert taken.by("/login") == "('login' has had its 1 call)"
    assert taken.by("/logout") == "(it is not the turn of 'logout': 'work' comes first)"
    assert [taken.by("/work"), taken.by("/work"), taken.by("/logout")] == ["work", "work", "logout"]
    assert taken.by("/work") == "(the turn of 'work' is over)"


def test_a_refusal_names_the_nearest_and_every_difference() -> None:
    book = Book(parse_script([
        {"name": "ping", "match": {"path": "/ping"}, "answer": {}},
        {"name": "pay", "match": {"method": "POST", "path": "/payments/{id}", "json": {"sku": "a1"}}, "answer": {}},
    ]))  # fmt: skip
    decision = book.decide(call("POST", "/payment/3", b'{"sku": "b2"}'))
    assert isinstance(decision, Refusal)
    assert (decision.nearest, decision.differences) == (
        "pay", ("path is /payment/3, not /payments/{id}", 'json.sku is "b2", not "a1"'),
    )  # fmt: skip


def test_jitter_is_drawn_by_the_seed_within_its_bounds() -> None:
    def delays(seed: int) -> list[int]:
        answer = {"delay": "10ms", "jitter": "20ms"}
        book = Book(parse_script({"seed": seed, "expectations": [{"answer": answer}]}))
        return [int(turn.delay) for _ in range(200) if isinstance(turn := book.decide(call()), Turn)]

    assert delays(1) == delays(1) != delays(2)
    assert min(delays(1)) == 0
    assert 20_000_000 < max(delays(1)) <= 30_000_000
