"""Events are written strictly and read forgivingly: an older Squall can show the run of a newer one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import typing
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall import events
from squall.events import (
    KINDS,
    Event,
    Finding,
    ProbeWindow,
    Stamp,
    Stamped,
    UnknownEvent,
    VerdictReached,
    decode,
    encode,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
STAMPS = st.builds(Stamp, TEXT, st.integers(0, 2**53), st.integers(0, 2**63), st.integers(0, 2**63))


PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-(2**63), 2**63),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    Any: JSON,
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Whatever a field of this type may hold."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXT, values_of(arguments[1]), max_size=3)
    if arguments:  # a union with None
        return st.one_of([values_of(argument) for argument in arguments])
    return instances_of(Finding) if hint is Finding else PLAIN[hint]


def instances_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls, vars(events))
    return st.builds(cls, **{field.name: values_of(hints[field.name]) for field in dataclasses.fields(cls)})


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
def test_every_kind_is_read_as_it_was_written(kind: str, data: st.DataObject) -> None:
    stamped = Stamped(data.draw(STAMPS), data.draw(instances_of(KINDS[kind])))
    line = encode(stamped)
    assert "\n" not in line
    assert decode(line) == stamped


def test_every_event_class_has_a_kind_of_its_own() -> None:
    classes = [cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Event)]
    concrete = [cls for cls in classes if cls not in (Event, UnknownEvent)]
    assert sorted(KINDS) == sorted(cls.kind for cls in concrete)
    assert len({cls.kind for cls in concrete}) == len(concrete)
    assert all(cls.__name__ in events.__all__ for cls in concrete)


def test_no_event_field_is_taken_for_the_stamp() -> None:
    taken = {"run", "seq", "wall_ns", "mono_ns", "kind"}
    for cls in KINDS.values():
        assert not taken & {field.name for field in dataclasses.fields(cls)}, cls


@given(STAMPS, st.dictionaries(TEXT.filter(lambda key: key not in ("run", "seq", "wall_ns", "mono_ns", "kind")), JSON))
def test_an_unknown_kind_is_kept_whole(stamp: Stamp, data: dict[str, Any]) -> None:
    event = UnknownEvent("moon-fell", data)
    assert decode(encode(Stamped(stamp, event))) == Stamped(stamp, event)


def line_of(**changes: object) -> str:
    return json.dumps(
        {"run": "r", "seq": 1, "wall_ns": 2, "mono_ns": 3, "kind": "fault-started", "fault": "0-x", "took_ns": 4}
        | changes
    )


def test_an_unknown_field_is_dropped() -> None:
    assert decode(line_of(colour="red")) == decode(line_of())


def test_an_event_that_lacks_a_field_is_kept_as_unknown() -> None:
    line = json.dumps({"run": "r", "seq": 1, "wall_ns": 2, "mono_ns": 3, "kind": "fault-started"})
    assert decode(line).event == UnknownEvent("fault-started", {})


def test_a_newer_finding_keeps_what_is_known_of_it() -> None:
    finding = Finding("p95 <= 300ms", "orders", "met", "as it should be")
    stamped = Stamped(Stamp("r", 1, 2, 3), VerdictReached("passed", "all held", [finding]))
    data = json.loads(encode(stamped))
    data["findings"][0]["mood"] = "good"
    assert decode(json.dumps(data)) == stamped


@pytest.mark.parametrize("findings", [[{"expectation": "x"}], [3], {"a": 1}, 7, None])
def test_findings_that_make_no_sense_are_kept_as_unknown(findings: object) -> None:
    line = line_of(kind="verdict-reached", verdict="passed", reason="", findings=findings)
    assert isinstance(decode(line).event, UnknownEvent)


@given(st.data())
def test_a_torn_line_is_no_event(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    line = encode(Stamped(data.draw(STAMPS), data.draw(instances_of(KINDS[kind]))))
    cut = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(ValueError):  # noqa: PT011 - json's own message, or ours
        decode(line[:cut])


@pytest.mark.parametrize(
    "line",
    ["", "null", "3", "[]", "{}", '"run"', '{"run": "r"}', '{"run":"r","seq":1,"wall_ns":2,"mono_ns":3}', "\x00" * 40,
     line_of(seq="one"), line_of(run=3), line_of(wall_ns=None), line_of(kind=["fault-started"]), line_of(kind=None), "[" * 100_000],
)  # fmt: skip
def test_what_is_no_event_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own message, or ours
        decode(line)


@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_any_line_is_an_event_or_a_value_error(line: str) -> None:
    with contextlib.suppress(ValueError):
        decode(line)


def test_what_json_cannot_say_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(Stamped(Stamp("r", 1, 2, 3), ProbeWindow("orders", 1, 0, 1, {"cpu": math.nan})))


def test_events_cannot_be_changed() -> None:
    stamped = Stamped(Stamp("r", 1, 2, 3), events.FaultStarted("0-x", 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stamped.event.fault = "1-y"  # type: ignore[attr-defined]  # that it cannot is what is tested
