"""Offsets and drifts of clocks have signs; a drift may be a bare number, for there is only one unit of it."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from squall.errors import UnitError
from squall.units import Drift, Duration, Offset, Within


class Holder(BaseModel):
    offset: Annotated[Offset, Within("-1d", "1d")] = Offset(0)
    drift: Annotated[Drift, Within("-500ppm", "500ppm")] = Drift(0)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("500ms", 500_000_000),
        ("+500ms", 500_000_000),
        ("-1d", -86_400_000_000_000),
        ("-1m30s", -90_000_000_000),
        ("0s", 0),
        ("-0s", 0),
        ("-9223372036854775807ns", -(2**63) + 1),
    ],
)
def test_an_offset_is_a_duration_with_a_sign(text: str, ns: int) -> None:
    assert Offset.parse(text) == ns


@pytest.mark.parametrize("text", ["", "-", "+", "--1s", "1s-", "- 1s", "5", "1s-2s"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="is not a clock offset: write it like 500ms, -1d"):
        Offset.parse(text)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_offset_is_read_as_it_was_printed(ns: int) -> None:
    assert Offset.parse(str(Offset(ns))) == ns


@pytest.mark.parametrize(("text", "ppm"), [("200ppm", 200), ("-0.5ppm", -0.5), ("+3ppm", 3), ("1000000ppm", 1_000_000)])
def test_a_drift_is_in_millionths(text: str, ppm: float) -> None:
    assert Drift.parse(text) == ppm


@pytest.mark.parametrize("text", ["200", "ppm", "1e3ppm", "2%", "--1ppm", "nanppm", "1000001ppm"])
def test_what_is_no_drift_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match=r"is not a clock drift|more than a clock can drift"):
        Drift.parse(text)


@given(st.floats(-1_000_000, 1_000_000).filter(lambda ppm: ppm == 0 or abs(ppm) > 1e-9))
def test_every_drift_is_read_as_it_was_printed(ppm: float) -> None:
    assert Drift.parse(str(Drift(ppm))) == ppm


def test_a_bare_number_is_ppm_and_no_offset() -> None:
    assert Holder.model_validate({"drift": -200}).drift == -200
    assert Holder.model_validate({"drift": 0.5}).drift == 0.5
    for field, value in (
        ("offset", 3),
        ("drift", True),
        ("drift", float("nan")),
        ("drift", 2_000_000),
        ("drift", None),
    ):
        with pytest.raises(ValidationError):
            Holder.model_validate({field: value})


def test_both_ends_of_a_signed_range_are_allowed_and_no_more() -> None:
    for value in ("-1d", "24h"):
        assert abs(Holder.model_validate({"offset": value}).offset) == Duration.parse("1d")
    with pytest.raises(ValidationError, match="'-24h1ns' is out of range: -1d to 1d is allowed"):
        Holder.model_validate({"offset": "-1d1ns"})
    with pytest.raises(ValidationError, match="out of range"):
        Holder.model_validate({"drift": "501ppm"})


def test_they_are_written_as_people_do_and_an_editor_knows_both_forms() -> None:
    holder = Holder.model_validate({"offset": "-1m30s", "drift": -12.5})
    assert json.loads(holder.model_dump_json()) == {"offset": "-1m30s", "drift": "-12.5ppm"}
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    schema = Holder.model_json_schema()["properties"]
    assert schema["offset"]["type"] == "string"
    assert schema["drift"]["type"] == ["string", "number"]
    assert (schema["drift"]["x-squall-minimum"], schema["drift"]["x-squall-maximum"]) == ("-500ppm", "500ppm")
    assert [repr(Offset(-1)), repr(Drift(2))] == ["Offset('-1ns')", "Drift('2ppm')"]
