"""Scripts: read whole or refused with every error, its place and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.documents import DocumentError
from squall.errors import InputError
from squall.standins import Script, read_script
from squall.standins.script import parse_script

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: payment
inOrder: true
seed: 7
expectations:
  - name: declined twice, then paid
    match: {method: POST, path: "/payments/{id}", query: {page: 1}, headers: {X-Trace: "*"}, json: {sku: a1}}
    answers:
      - {status: 503, headers: {Retry-After: 1}, times: 2}
      - {status: 201, body: {paid: true}, delay: 100ms, jitter: 10ms}
    calls: 3
  - answer: {body: hello, drip: {size: 2B, every: 10ms}}
"""


def errors_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(DocumentError) as caught:
        read_script(path)
    return str(caught.value).replace(str(path), "f").splitlines()


def test_a_script_is_read_from_yaml_and_from_json_and_is_frozen(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(GOOD)
    script = read_script(tmp_path / "s.yaml")
    (tmp_path / "s.json").write_text(script.model_dump_json())
    assert read_script(tmp_path / "s.json") == script
    first, second = script.expectations
    assert [first.answer_to(number).status for number in range(5)] == [503, 503, 201, 201, 201]
    assert (first.least, first.most, second.least, second.most) == (3, 3, 1, None)
    assert (first.match.query, first.answers[0].headers) == ({"page": "1"}, {"Retry-After": "1"})
    assert second.title == "ANY METHOD *"
    with pytest.raises(ValueError, match="frozen"):
        script.name = "other"  # type: ignore[misc]


def test_every_error_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    assert errors_of(
        tmp_path / "f",
        "inorder: true\n"
        "expectations:\n"
        "  - match: {methd: GET, path: items}\n"
        "    answer: {status: 99, delay: 3}\n"
        "  - answer: {failure: hangs}\n"
        "  - {match: {path: /}}\n",
    ) == [
        "f:1:1: inorder: is not known here; did you mean 'inOrder'? (allowed: expectations, inOrder, name, seed)",
        (
            "f:3:13: expectations[0].match.methd: is not known here; did you mean 'method'?"
            " (allowed: body, headers, json, method, path, query)"
        ),
        (
            "f:3:31: expectations[0].match.path: 'items' does not have the right form (allowed: The path without its query;"
            ' `{name}` stands for one segment, `*` for any characters ("/items/{id}", "/files/*"))'
        ),
        "f:4:22: expectations[0].answer.status: 99: must be at least 200",
        (
            "f:4:33: expectations[0].answer.delay: 3 has no unit: write a duration such as 250ms, 1.5s, 1m30s;"
            " write '3s' if that is what you mean"
        ),
        (
            "f:5:23: expectations[1].answer.failure: 'hangs' is not allowed here; did you mean 'hang'?"
            " (allowed: close, reset, cut, malformed, hang)"
        ),
        "f:6:5: expectations[2]: give either `answer` or a list of `answers`",
    ]


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        ("{answer: {}, answers: [{}]}", "give either `answer` or a list of `answers`"),
        ("{answer: {}, calls: 1, atLeast: 1}", "give either `calls` or `atLeast` and `atMost`"),
        ("{answer: {}, atLeast: 3, atMost: 2}", "`atLeast` (3) is more than `atMost` (2)"),
        ("{answer: {failure: hang, status: 200}}", "`failure: hang` sends no answer: leave out status"),
        ("{answer: {failure: cut}}", "`failure: cut` needs a `body` that is not empty"),
        ("{answer: {drip: {size: 1B, every: 1s}}}", "`drip` needs a `body` that is not empty"),
        ("{answer: {body: x, drip: {size: 0B, every: 1s}}}", "'0B' is out of range: 1B to 1MiB is allowed"),
        ("{answer: {status: 204, body: x}}", "an answer with status 204 has no body"),
        ("{answer: {headers: {Content-Length: 3}}}", "Content-Length: set by the server"),
        ('{answer: {headers: {A: "x\\r\\nB: y"}}}', "does not have the right form"),
        ('{answer: {headers: {A: "\\u4e2d"}}}', "does not have the right form"),
        ("{answer: {headers: {a b: x}}}", "does not have the right form"),
        ("{answer: {times: 0}}", "must be at least 1"),
        ("{answer: {delay: 2h}}", "out of range"),
        ("{answer: {body: 3}}", "neither text nor a mapping nor a list"),
        ("{match: {json: {a: 1}, body: x}, answer: {}}", "give either `json` or `body`"),
        ("{match: {method: 'GET /'}, answer: {}}", "does not have the right form"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, expectation: str, said: str) -> None:
    assert said in "\n".join(errors_of(tmp_path / "f", f"expectations: [{expectation}]\n"))


@pytest.mark.parametrize("text", ["", "3", "[]", "expectations: []", "expectations: {}", "a: [", "\0"])
def test_what_is_no_script_is_refused(tmp_path: Path, text: str) -> None:
    assert errors_of(tmp_path / "f", text)


def test_plain_values_are_a_script_and_a_bare_list_its_expectations() -> None:
    bare = parse_script([{"match": {"path": "/a"}, "answer": {"status": 204}}])
    assert bare == parse_script({"expectations": [{"match": {"path": "/a"}, "answer": {"status": 204}}]})
    with pytest.raises(
        DocumentError, match=r"^script: expectations\[0\]\.answer\.status: 'x': must be a whole number$"
    ):
        parse_script([{"answer": {"status": "x"}}])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = ("match", "answer", "answers", "calls", "atLeast", "path", "json", "query", "status", "failure", "drip", "body")
nearly = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from(keys), inner, max_size=4) | st.lists(inner, max_size=3)
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["expectations", "seed", "inOrder", "name"]), nearly) | st.lists(nearly))
def test_no_value_gives_anything_but_a_script_or_an_input_error(value: dict[str, object]) -> None:
    try:
        script = parse_script(value)
    except InputError as error:
        assert str(error).startswith("script")  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(script, Script)
