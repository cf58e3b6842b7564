"""Documents: plain values with places, and an answer with a place for every kind of broken file."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.documents import Document, DocumentError, load, load_all, read

TEXT = """\
kind: Experiment
spec:
  faults:
    - {type: tcp.latency, latency: 3s}
    - type: http.abort
      on: request
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(text, "f.yaml")
    return str(caught.value).splitlines()


def test_values_are_plain_and_follow_the_core_rules_of_yaml_1_2() -> None:
    value = load(
        "a: on\nb: 08\nc: 2020-01-01\nd: 1e3\ne: 0o7\nf: true\ng:\nh: '1'\n80: x\ni: 1:30\nj: 0x1F\n", "f"
    ).value
    assert value == {
        "a": "on", "b": 8, "c": "2020-01-01", "d": 1000.0, "e": 7, "f": True, "g": None, "h": "1", "80": "x", "i": "1:30",
        "j": 31,
    }  # fmt: skip
    assert {type(each) for each in value.values()} == {str, int, float, bool, type(None)}


def test_places_are_those_of_values_or_keys_or_the_nearest_parent() -> None:
    document = load(TEXT, "f.yaml")
    assert str(document.where(("spec", "faults", 1, "on"))) == "f.yaml:6:11"
    assert str(document.where(("spec", "faults", 1, "on"), key=True)) == "f.yaml:6:7"
    assert str(document.where(("spec", "faults", 0, "latency"))) == "f.yaml:4:36"
    assert str(document.where(("spec", "nothing", "here"))) == "f.yaml:3:3"
    assert document.has(("spec", "faults", 1))
    assert not document.has(("spec", "faults", 2))


def test_json_is_read_too_with_tabs_and_surrogate_pairs() -> None:
    assert load('{\n\t"a": "\\ud83d\\ude00\\/", "b": [1, null]\n}', "f.json").value == {
        "a": "\U0001f600/",
        "b": [1, None],
    }


def test_several_documents_are_read_by_load_all_and_refused_by_load() -> None:
    assert [document.value for document in load_all("a: 1\n---\nb: 2\n", "f")] == [{"a": 1}, {"b": 2}]
    assert problems("a: 1\n---\nb: 2\n") == [
        "f.yaml:3:1: document: a second document begins here, f.yaml must hold one"
    ]


def test_aliases_and_merges_are_followed() -> None:
    value = load("x: &x {a: 1, b: 2}\ny: *x\nz: {<<: *x, b: 3}\n", "f").value
    assert value == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 2}, "z": {"a": 1, "b": 3}}


def test_every_duplicate_key_and_foreign_tag_is_reported_at_once() -> None:
    assert problems("a: 1\nb: !env HOME\na: 2\nc: !!binary aGk=\n") == [
        "f.yaml:2:4: b: the tag !env is not allowed: values are plain",
        "f.yaml:3:1: a: is given twice, first in line 1",
        "f.yaml:4:4: c: the tag tag:yaml.org,2002:binary is not allowed: values are plain",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.yaml: document: is empty"),
        ("# only a comment\n", "f.yaml: document: is empty"),
        ("a:\n\t- b\n", "f.yaml:2:1: document: a tab cannot indent YAML: use spaces"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:4: document: is not UTF-8: byte 0xff"),
        ("a: 1\nb\0: 2\n", "f.yaml:2:2: document: the character U+0000 is not allowed"),
        ("a: b: c\n", "f.yaml:1:5: document: is not YAML: mapping values are not allowed here"),
        ("a: *x\n", "f.yaml:1:4: a: the alias *x is not defined before this place"),
        ("a: &x [*x]\n", "f.yaml:1:8: a[0]: the alias *x refers to itself"),
        ("? [1, 2]\n: b\n", "f.yaml:1:3: document: a key must be text"),
        ("a: 1e999\n", "f.yaml:1:4: a: the number 1e999 is not finite"),
        ("a: .nan\n", "f.yaml:1:4: a: the number .nan is not finite"),
        ("a: " + "9" * 5000, "has too many digits"),
        ('a: "\\ud83d"\n', "holds half of a surrogate pair"),
        ("a: '", "f.yaml:1:5: document: is not YAML"),
        ("[" * 3000, "is nested more than 64 deep"),
        ("- " * 3000, "is nested more than 64 deep"),
        ("{a: " * 100, "is nested more than 64 deep"),
        ('a: "\\UFFFFFFFF"', "cannot be read as YAML"),
        ("a: !!set {b}\n", "f.yaml:1:4: a: the tag tag:yaml.org,2002:set is not allowed"),
        ("".join(f"k{n}: !x {n}\n" for n in range(200)), "is not allowed"),
        ("!" * 500_000, "f.yaml: document: holds a tag without an end"),
        ("a: {<<: 3}\n", "only a mapping, or a list of mappings, can be merged"),
        ("%YAML 9.0\n---\na: 1\n", "f.yaml:1:1: document: is not YAML"),
        ("x" * 1_048_577, "is larger than 1024 KiB"),
    ],
)
def test_a_broken_document_is_an_error_with_its_place(text: str | bytes, said: str) -> None:
    assert said in "\n".join(problems(text))


@pytest.mark.parametrize("text", ["a: !{0}", "a: *{0}", "{0}: !a b", "{0}: 1\n{0}: 2\n"])
def test_a_message_is_short_whatever_is_shown_in_it(text: str) -> None:
    assert len("\n".join(problems(text.replace("{0}", "x" * 900)))) < 400


def test_an_alias_bomb_is_refused_by_its_full_size() -> None:
    bomb = "a: &a [" + ",".join("x" * 9) + "]\n"
    for name, before in zip(string.ascii_lowercase[1:9], string.ascii_lowercase, strict=False):
        bomb += f"{name}: &{name} [" + ",".join([f"*{before}"] * 9) + "]\n"
    assert "holds more than 50000 values" in problems(bomb)[0]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path, said in [
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "null byte"),
    ]:
        with pytest.raises(DocumentError, match=said):
            read(path)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab1 \n\t:-?{}[],&*!|>'\"%#@`\\~.<e\0\ud800é", max_size=60))
def test_no_text_gives_anything_but_a_document_or_a_document_error(text: str) -> None:
    try:
        documents = load_all(text, "f")
    except DocumentError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
    else:
        assert all(isinstance(document, Document) for document in documents)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_give_anything_but_a_document_or_a_document_error(data: bytes) -> None:
    try:
        load_all(data, "f")
    except DocumentError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
