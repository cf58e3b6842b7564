"""Quantities are read strictly, printed in a form that is read as the same value, and ordered like numbers."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from squall.errors import InputError, UnitError
from squall.units import Bandwidth, Drift, Duration, Offset, Rate, Ratio, Size, Within

QUANTITIES = (Duration, Offset, Drift, Ratio, Bandwidth, Size, Rate)


class Holder(BaseModel):
    duration: Duration = Duration(0)
    bounded: Annotated[Duration, Within("1ms", "1h")] = Duration.parse("1s")
    ratio: Ratio = Ratio(0)
    bandwidth: Bandwidth = Bandwidth(0)
    size: Size = Size(0)
    rate: Rate = Rate(0)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("20ns", 20),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        ("0.25ms", 250_000),
        ("1m", 60_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1d", 86_400_000_000_000),
        ("1d2h3m4s5ms6us7ns", 93_784_005_006_007),
        ("90m", 5_400_000_000_000),
        ("007s", 7_000_000_000),
        ("9223372036854775807ns", 2**63 - 1),
    ],
)
def test_durations_are_whole_nanoseconds(text: str, ns: int) -> None:
    assert Duration.parse(text) == ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5us"),
        (250_000_000, "250ms"),
        (1_200_000_000, "1.2s"),
        (59_999_999_999, "59.999999999s"),
        (60_000_000_000, "1m"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h"),
        (3_600_500_000_000, "1h500ms"),
        (93_784_005_006_007, "26h3m4.005006007s"),
    ],
)
def test_durations_are_printed_short_and_exact(ns: int, text: str) -> None:
    assert str(Duration(ns)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "3", "3 sec", "3sec", "3 s", " 3s", "3s ", "3s\n", "\t3s", "-1s", "+1s", "1e3s", "1e999s", "inf", "nan",
        "infs", ".5s", "5.s", "1,5s", "1s1m", "1s1s", "1ms1s", "1_000s", "\u0663s", "\uff13s", "1S", "1M", "1min", "0x1s",
        "1.5.5s", "s", "1s 1ms", "1" * 65 + "s", "1s" * 40, "²s",
    ],
)  # fmt: skip
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match=r"is not a duration: write it like 250ms, 1\.5s, 1m30s"):
        Duration.parse(text)


def test_a_duration_has_an_upper_and_a_lower_end() -> None:
    with pytest.raises(UnitError, match="longer than a duration can be"):
        Duration.parse("9223372036854775808ns")
    with pytest.raises(UnitError, match="finer than a nanosecond"):
        Duration.parse("0.5ns")
    assert Duration.of(1.5) == 1_500_000_000
    assert Duration.parse("1500ms").seconds == 1.5


@given(st.integers(0, 2**63 - 1))
def test_every_duration_is_read_as_it_was_printed(ns: int) -> None:
    assert Duration.parse(str(Duration(ns))) == ns


@pytest.mark.parametrize(
    ("text", "share"),
    [("0%", 0.0), ("0.5%", 0.005), ("40%", 0.4), ("100%", 1.0), ("33.3%", 0.333), ("100.000%", 1.0)],
)
def test_percentages_are_shares(text: str, share: float) -> None:
    assert Ratio.parse(text) == share
    assert Ratio.parse(str(Ratio.parse(text))) == share


@pytest.mark.parametrize(
    "text", ["", "%", "5", "0.5", "-1%", "+1%", "1e1%", "5 %", " 5%", "5%\n", "\u0665%", "5%%", "nan%", "1/2"]
)
def test_what_is_not_a_percentage_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="is not a percentage"):
        Ratio.parse(text)


@pytest.mark.parametrize("text", ["100.1%", "101%", "1000%", "100.0000000000000000000000001%"])
def test_more_than_everything_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="more than 100%"):
        Ratio.parse(text)


@given(st.floats(0, 1).filter(lambda share: share == 0 or share > 1e-40))
def test_every_share_is_read_as_it_was_printed(share: float) -> None:
    assert Ratio.parse(str(Ratio(share))) == share


@given(st.decimals(0, 100, places=12))
def test_every_percentage_is_read_as_the_nearest_share(percent: object) -> None:
    text = f"{percent:f}%"
    assert Ratio.parse(text) == float(Fraction(text[:-1]) / 100)


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("8bit", 1),
        ("1kbit", 125),
        ("512kbit", 64_000),
        ("10mbit", 1_250_000),
        ("1gbit", 125_000_000),
        ("1.5mbit", 187_500),
        ("1B/s", 1),
        ("1kB/s", 1_000),
        ("1MB/s", 1_000_000),
        ("2GB/s", 2_000_000_000),
        ("1KiB/s", 1_024),
        ("1MiB/s", 1_048_576),
        ("0bit", 0),
    ],
)
def test_bandwidths_are_bytes_a_second(text: str, bytes_per_second: int) -> None:
    assert Bandwidth.parse(text) == bytes_per_second


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0bit"),
        (1, "8bit"),
        (125, "1kbit"),
        (1_250_000, "10mbit"),
        (187_500, "1.5mbit"),
        (125_000_125, "1000.001mbit"),
    ],
)
def test_bandwidths_are_printed_in_bits(value: int, text: str) -> None:
    assert str(Bandwidth(value)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10mb",
        "10 mbit",
        "10Mbit",
        "10mbps",
        "-1mbit",
        "1e3bit",
        "10MB",
        "10MiB",
        "mbit",
        "\u0661mbit",
        "10mbit\n",
    ],
)
def test_what_is_not_a_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="is not a bandwidth: write it like"):
        Bandwidth.parse(text)


@pytest.mark.parametrize("text", ["1bit", "12bit", "0.1B/s", "1.5B/s"])
def test_a_bandwidth_that_whole_bytes_cannot_give_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="not a whole number of bytes"):
        Bandwidth.parse(text)


@given(st.integers(0, 2**63 - 1))
def test_every_bandwidth_is_read_as_it_was_printed(value: int) -> None:
    assert Bandwidth.parse(str(Bandwidth(value))) == value


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("512B", 512),
        ("1kB", 1_000),
        ("1KiB", 1_024),
        ("64MiB", 67_108_864),
        ("1GB", 1_000_000_000),
        ("1.5GiB", 1_610_612_736),
        ("1TiB", 2**40),
        ("0.3MiB", 314_573),
    ],
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "1", "1b", "1KB", "1kiB", "1K", "1M", "1 MB", "-1B", "1e3B", "MiB", "1MB/s", "1PiB", "\u0661B"]
)
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="is not a size: write it like"):
        Size.parse(text)


def test_half_a_byte_and_more_than_there_are_addresses_are_refused() -> None:
    with pytest.raises(UnitError, match="not a whole number of bytes"):
        Size.parse("0.5B")
    with pytest.raises(UnitError, match="more than a size can be"):
        Size.parse("9000000000TiB")


@given(st.integers(0, 2**63 - 1))
def test_every_size_is_read_as_it_was_printed(value: int) -> None:
    assert Size.parse(str(Size(value))) == value


@pytest.mark.parametrize(
    ("text", "per_second", "printed"),
    [
        ("50/s", 50.0, "50/s"),
        ("0.5/s", 0.5, "0.5/s"),
        ("600/m", 10.0, "10/s"),
        ("3600/h", 1.0, "1/s"),
        ("1/m", 1 / 60, "1/m"),
        ("7/h", 7 / 3600, "7/h"),
        ("0/s", 0.0, "0/s"),
        ("1000000/s", 1e6, "1000000/s"),
    ],
)
def test_rates_are_per_second(text: str, per_second: float, printed: str) -> None:
    assert Rate.parse(text) == per_second
    assert str(Rate.parse(text)) == printed


@pytest.mark.parametrize(
    "text", ["", "50", "50/", "/s", "50 /s", "50/sec", "50/d", "-1/s", "1e3/s", "50/S", "\u0665/s", "50s", "50/s\n"]
)
def test_what_is_not_a_rate_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="is not a rate: write it like"):
        Rate.parse(text)


def test_more_than_a_million_a_second_is_refused() -> None:
    with pytest.raises(UnitError, match="more than a rate can be"):
        Rate.parse("1000001/s")


@given(st.decimals(0, 1_000_000, places=6), st.sampled_from(["s", "m", "h"]))
def test_every_rate_is_read_as_it_was_printed(number: object, unit: str) -> None:
    rate = Rate.parse(f"{number:f}/{unit}")
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("quantity", QUANTITIES)
@given(text=st.text(max_size=80) | st.from_regex(r"[0-9.eE+-]{0,9} ?[a-zA-Zµ%/]{0,6}", fullmatch=True))
def test_any_text_is_a_value_or_a_unit_error(quantity: type[Duration], text: str) -> None:
    try:
        value = quantity.parse(text)
    except UnitError as error:
        assert len(str(error)) < 400  # noqa: PT017 - it is the message's length that is looked at
    else:
        assert quantity.parse(str(value)) == value
        assert re.search(quantity._pattern, text), "what is read has the form that editors are told"


@pytest.mark.parametrize("quantity", QUANTITIES)
@given(text=st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,3})?[a-zA-Zµ%/]{1,6}", fullmatch=True))
def test_what_has_the_form_is_read_unless_it_is_out_of_range(quantity: type[Duration], text: str) -> None:
    if re.search(quantity._pattern, text):
        try:
            quantity.parse(text)
        except UnitError as error:
            assert "write it like" not in str(error)  # noqa: PT017 - the branch is what is looked at


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "duration",
            3,
            "3 has no unit: write a duration such as 250ms, 1.5s, 1m30s; write '3s' if that is what you mean",
        ),
        ("duration", -1, "-1 has no unit: write a duration such as 250ms, 1.5s, 1m30s"),
        ("duration", float("inf"), "inf has no unit: write a duration such as 250ms, 1.5s, 1m30s"),
        ("duration", True, "True is not a duration: write it like 250ms, 1.5s, 1m30s"),
        ("duration", None, "nothing is not a duration: write it like 250ms, 1.5s, 1m30s"),
        ("duration", [1] * 1000, "a list is not a duration: write it like 250ms, 1.5s, 1m30s"),
        ("bounded", "2h", "'2h' is out of range: 1ms to 1h is allowed"),
        ("bounded", "0s", "'0s' is out of range: 1ms to 1h is allowed"),
        (
            "ratio",
            0.02,
            "0.02 has no unit: write a percentage such as 0.5%, 40%, 100%; write '0.02%' or '2%' if that is what you mean",
        ),
        ("rate", 50, "50 has no unit: write a rate such as 50/s, 0.5/s, 600/m; write '50/s' if that is what you mean"),
        ("size", {"MiB": 3}, "a mapping is not a size: write it like 64MiB, 1GB, 512B"),
    ],
)
def test_a_model_says_what_is_wrong_with_a_quantity(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({field: value})
    (details,) = caught.value.errors()
    assert (details["loc"], details["msg"]) == ((field,), f"Value error, {message}")


def test_both_ends_of_a_range_are_allowed() -> None:
    assert Holder.model_validate({"bounded": "1ms"}).bounded == 1_000_000
    assert Holder.model_validate({"bounded": "1h"}).bounded == 3_600_000_000_000


def test_a_model_writes_quantities_as_people_do() -> None:
    said = {
        "duration": "1m30s",
        "bounded": "20ms",
        "ratio": "0.5%",
        "bandwidth": "10mbit",
        "size": "64MiB",
        "rate": "50/s",
    }
    holder = Holder.model_validate(said)
    assert json.loads(holder.model_dump_json()) == said
    assert Holder.model_validate_json(holder.model_dump_json()) == holder


def test_an_editor_is_told_form_examples_and_range() -> None:
    schema = Holder.model_json_schema()["properties"]
    assert (schema["bounded"]["x-squall-minimum"], schema["bounded"]["x-squall-maximum"]) == ("1ms", "1h")
    for field, quantity in (
        ("duration", Duration),
        ("ratio", Ratio),
        ("bandwidth", Bandwidth),
        ("size", Size),
        ("rate", Rate),
    ):
        assert schema[field]["type"] == "string"
        for example in schema[field]["examples"]:
            assert re.search(schema[field]["pattern"], example)
            assert isinstance(quantity.parse(example), quantity)


def test_quantities_are_numbers_of_their_base_unit() -> None:
    assert Duration.parse("1s") < Duration.parse("1500ms") <= 1_500_000_000
    assert {Size.parse("1KiB"): "a"}[1024] == "a"
    assert repr(Duration.parse("1500ms")) == "Duration('1.5s')"
    assert [repr(Ratio(0.4)), repr(Bandwidth(125)), repr(Size(1024)), repr(Rate(2))] == [
        "Ratio('40%')", "Bandwidth('1kbit')", "Size('1KiB')", "Rate('2/s')",
    ]  # fmt: skip
    assert str(Duration(-1_500_000_000)) == "-1.5s", "a difference may be negative; no document can say so"


def test_a_unit_error_is_wrong_input() -> None:
    assert issubclass(UnitError, InputError)
    assert issubclass(UnitError, ValueError)
    assert UnitError.exit_status == 2
