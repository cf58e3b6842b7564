"""Quantities as people write them: `Duration` "1m30s", `Ratio` "40%", `Bandwidth` "10mbit", `Size` "64MiB", `Rate` "50/s".

Each is a subclass of int or float in one base unit, parsed strictly (a bare number has no unit and is refused),
printed in the shortest exact form, and ordered like a number. Pydantic fields may use them directly; pydantic itself
is only touched when a model asks, so the recovery layers can import this module with nothing installed.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Self

from squall.errors import UnitError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Bandwidth", "Drift", "Duration", "Offset", "Rate", "Ratio", "Size", "Within"]

_DECIMAL = r"[0-9]+(?:\.[0-9]+)?"
_LONGEST_TEXT = 64
"""Longer texts are refused unread: nobody writes a quantity that long, and a parser should not work for it."""
_READABLE = 8
"""A rate is printed a second unless that takes more characters than this and another unit takes fewer."""


class _Quantity:
    """What the units share: strict parsing from text and the hook that lets pydantic validate and describe them."""

    _pattern: ClassVar[str]
    """The regular expression of the written form, for editors (JSON Schema) and for people."""
    _examples: ClassVar[tuple[str, ...]]

    @classmethod
    def parse(cls, text: str) -> Self:
        raise NotImplementedError

    @classmethod
    def _coerce(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            kinds = {dict: "a mapping", list: "a list", tuple: "a list", type(None): "nothing"}
            raise UnitError(
                f"{kinds.get(type(value), str(value)[:20])} is not a {cls._noun}: write it like {cls._allowed()}"
            )
        meant = " or ".join(cls._meant(value))
        also = f"; write {meant} if that is what you mean" if meant else ""
        raise UnitError(f"{value!r} has no unit: write a {cls._noun} such as {cls._allowed()}{also}")

    @classmethod
    def _meant(cls, number: float) -> tuple[str, ...]:
        """What a bare number may stand for, in quotes."""
        try:
            cls.parse(f"{number}{cls._hint_unit}")
        except UnitError:
            return ()
        return (f"'{number}{cls._hint_unit}'",)

    _noun: ClassVar[str]
    _hint_unit: ClassVar[str]

    @classmethod
    def _allowed(cls) -> str:
        return ", ".join(cls._examples)

    @classmethod
    def _refuse(cls, text: str) -> UnitError:
        shown = text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."
        return UnitError(f"{shown!r} is not a {cls._noun}: write it like {cls._allowed()}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls._coerce,
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": cls._pattern, "examples": list(cls._examples), "title": cls.__name__}


class Duration(_Quantity, int):
    """A length of time in whole nanoseconds, 0 to about 292 years (2**63 - 1 ns).

    Written as numbers with units, largest first, each at most once: "1h", "1m30s", "1.5s", "250ms", "500us", "20ns".
    """

    _noun = "duration"
    _hint_unit = "s"
    _examples = ("250ms", "1.5s", "1m30s")
    _pattern = (
        rf"^(?!$)(?:{_DECIMAL}d)?(?:{_DECIMAL}h)?(?:{_DECIMAL}m)?(?:{_DECIMAL}s)?"
        rf"(?:{_DECIMAL}ms)?(?:{_DECIMAL}(?:us|µs))?(?:{_DECIMAL}ns)?$"
    )
    _ns: ClassVar[dict[str, int]] = {
        "d": 86_400_000_000_000, "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000,
        "ms": 1_000_000, "us": 1_000, "µs": 1_000, "ns": 1,
    }  # fmt: skip
    _max_ns: ClassVar[int] = 2**63 - 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "1m30s" and the like; raise UnitError (a ValueError) for anything else."""
        if len(text) > _LONGEST_TEXT or not re.fullmatch(cls._pattern, text):
            raise cls._refuse(text)
        parts = re.findall(rf"({_DECIMAL})(d|h|ms|m|s|us|µs|ns)", text)
        ns = sum(Fraction(number) * cls._ns[unit] for number, unit in parts)
        if ns > cls._max_ns:
            raise UnitError(f"{text!r} is longer than a duration can be (about 292 years)")
        if ns.denominator != 1:
            raise UnitError(f"{text!r} is finer than a nanosecond")
        return cls(int(ns))

    @classmethod
    def of(cls, seconds: float) -> Self:
        """A duration of so many seconds, rounded to the nanosecond."""
        return cls(round(seconds * 1e9))

    @property
    def rounded(self) -> Self:
        """To three significant digits, for people: 12.1s, not 12.149224685s."""
        step = 10 ** max(0, len(str(abs(int(self)))) - 3)
        return type(self)(round(int(self) / step) * step)

    @property
    def seconds(self) -> float:
        """This duration in seconds."""
        return self / 1e9

    def __str__(self) -> str:
        if self < 0:
            return "-" + str(Duration(-int(self)))
        left, parts = int(self), []
        for unit in ("h", "m"):
            count, rest = divmod(left, self._ns[unit])
            if count:
                parts.append(f"{count}{unit}")
                left = rest
        if left or not parts:
            parts.append(self._below_a_minute(left))
        return "".join(parts)

    @classmethod
    def _below_a_minute(cls, ns: int) -> str:
        if ns == 0:
            return "0s"
        for unit in ("s", "ms", "us", "ns"):
            if ns >= cls._ns[unit]:
                whole, rest = divmod(ns, cls._ns[unit])
                digits = len(str(cls._ns[unit])) - 1
                fraction = f".{rest:0{digits}d}".rstrip("0") if rest else ""
                return f"{whole}{fraction}{unit}"
        raise AssertionError(ns)

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"


class Offset(_Quantity, int):
    """How far a clock is before (or, with a minus, behind) another, in whole nanoseconds: "500ms", "-1d", "+1h30m"."""

    _noun = "clock offset"
    _hint_unit = "s"
    _examples = ("500ms", "-1d", "+1h30m")
    _pattern = Duration._pattern.replace("^(?!$)", "^[-+]?(?!$)")  # noqa: SLF001 - a duration with a sign

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "-1d" and the like; raise UnitError (a ValueError) for anything else."""
        if len(text) > _LONGEST_TEXT or not re.fullmatch(cls._pattern, text):
            raise cls._refuse(text)
        ns = int(Duration.parse(text.lstrip("+-")))
        return cls(-ns if text.startswith("-") else ns)

    def __str__(self) -> str:
        return str(Duration(int(self)))

    def __repr__(self) -> str:
        return f"Offset({str(self)!r})"


_DRIFT_LEAST = 1e-9
"""In ppm, less than a microsecond in thirty years: a smaller drift is none, and need not be written with its zeros."""


class Drift(_Quantity, float):
    """By how much a clock runs faster (or, with a minus, slower), in millionths: "200ppm", "-0.5ppm"; a bare number is ppm."""

    _noun = "clock drift"
    _hint_unit = "ppm"
    _examples = ("200ppm", "-50ppm")
    _pattern = rf"^[-+]?{_DECIMAL}ppm$"

    def __new__(cls, millionths: float = 0.0) -> Self:
        """So many millionths; 0 for what nobody could measure."""
        return super().__new__(cls, millionths if abs(millionths) >= _DRIFT_LEAST else 0.0)

    @classmethod
    def _coerce(cls, value: object) -> Self:
        if isinstance(value, (int, float)) and not isinstance(value, (bool, cls)) and abs(value) <= 1_000_000:  # noqa: PLR2004
            return cls(value)
        return super()._coerce(value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "200ppm"; raise UnitError (a ValueError) for anything else and for more than a million."""
        if len(text) > _LONGEST_TEXT or not re.fullmatch(cls._pattern, text):
            raise cls._refuse(text)
        millionths = Fraction(text.removesuffix("ppm"))
        if abs(millionths) > 1_000_000:  # noqa: PLR2004
            raise UnitError(f"{text!r} is more than a clock can drift")
        return cls(float(millionths))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**super().__get_pydantic_json_schema__(schema, handler), "type": ["string", "number"]}

    def __str__(self) -> str:
        return f"-{Drift(-self)}" if self < 0 else _written(self, 1, "ppm")

    def __repr__(self) -> str:
        return f"Drift({str(self)!r})"


class Ratio(_Quantity, float):
    """A share between 0 and 1, written as a percentage: "0.5%", "40%", "100%"."""

    _noun = "percentage"
    _hint_unit = "%"
    _examples = ("0.5%", "40%", "100%")
    _pattern = rf"^{_DECIMAL}%$"

    @classmethod
    def _meant(cls, number: float) -> tuple[str, ...]:
        share = (f"'{cls(number)}'",) if 0 < number < 1 else ()
        return (*super()._meant(number), *share)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "40%"; raise UnitError (a ValueError) for anything else and above 100%."""
        if len(text) > _LONGEST_TEXT or not re.fullmatch(cls._pattern, text):
            raise cls._refuse(text)
        share = Fraction(text[:-1]) / 100
        if share > 1:
            raise UnitError(f"{text!r} is more than 100%")
        return cls(float(share))

    def __str__(self) -> str:
        return _written(self, 100, "%")

    def __repr__(self) -> str:
        return f"Ratio({str(self)!r})"


def _written(value: Drift | Ratio | Rate, scale: int, unit: str) -> str:
    """The scaled value in the fewest plain decimals that are read as the same value (17 digits tell any two floats apart)."""
    exact, text = Decimal(value) * scale, ""
    for digits in range(17):
        decimals = format(Decimal(f"{exact:.{digits}e}"), "f")
        text = (decimals.rstrip("0").rstrip(".") if "." in decimals else decimals) + unit
        try:
            if type(value).parse(text) == value:
                break
        except UnitError:  # over the limit by the rounding of a digit, or smaller than anybody writes
            continue
    return text


def _scaled(cls: type[_Quantity], text: str, scale: dict[str, Fraction], limit: int) -> Fraction:
    match = re.fullmatch(rf"({_DECIMAL})([A-Za-z]+(?:/s)?|/[a-z]+)", text) if len(text) <= _LONGEST_TEXT else None
    if not match or match[2] not in scale:
        raise cls._refuse(text)
    value = Fraction(match[1]) * scale[match[2]]
    if value > limit:
        raise UnitError(f"{text!r} is more than a {cls._noun} can be")
    return value


def _whole(cls: type[_Quantity], text: str, scale: dict[str, Fraction]) -> int:
    """Whole bytes: rounded where that changes what was asked by less than 0.1 %, else refused."""
    value = _scaled(cls, text, scale, 2**63 - 1)
    whole = round(value)
    if abs(whole - value) * 1000 > value:
        raise UnitError(f"{text!r} is not a whole number of bytes")
    return whole


def _units(powers: dict[str, int], step: int, suffix: str, base: Fraction) -> dict[str, Fraction]:
    return {prefix + suffix: base * step**power for prefix, power in powers.items()}


_SI = {"": 0, "k": 1, "m": 2, "g": 3}
_SI_BYTES = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}
_IEC = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}


class Bandwidth(_Quantity, int):
    """A data rate in whole bytes per second, written in bits as networks are ("10mbit", "1gbit") or bytes ("500kB/s")."""

    _noun = "bandwidth"
    _hint_unit = "mbit"
    _examples = ("10mbit", "512kbit", "1MB/s")
    _scale: ClassVar[dict[str, Fraction]] = {
        **_units(_SI, 1000, "bit", Fraction(1, 8)),
        **_units(_SI_BYTES, 1000, "B/s", Fraction(1)),
        **_units(_IEC, 1024, "B/s", Fraction(1)),
    }
    _pattern = rf"^{_DECIMAL}(?:[kmg]?bit|(?:[kMGT]|[KMGT]i)?B/s)$"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "10mbit" or "1MB/s"; raise UnitError (a ValueError) for anything else."""
        return cls(_whole(cls, text, cls._scale))

    def __str__(self) -> str:
        bits = int(self) * 8
        for unit, size in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
            if bits >= size and bits % (size // 1000) == 0:
                whole, thousandths = divmod(bits // (size // 1000), 1000)
                return f"{whole}" + (f".{thousandths:03}".rstrip("0") if thousandths else "") + unit
        return f"{bits}bit"

    def __repr__(self) -> str:
        return f"Bandwidth({str(self)!r})"


class Size(_Quantity, int):
    """An amount of data in whole bytes: "64MiB", "1GB", "512B"."""

    _noun = "size"
    _hint_unit = "MiB"
    _examples = ("64MiB", "1GB", "512B")
    _scale: ClassVar[dict[str, Fraction]] = {
        **_units(_SI_BYTES, 1000, "B", Fraction(1)),
        **_units(_IEC, 1024, "B", Fraction(1)),
    }
    _pattern = rf"^{_DECIMAL}(?:[kMGT]|[KMGT]i)?B$"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "64MiB"; raise UnitError (a ValueError) for anything else."""
        return cls(_whole(cls, text, cls._scale))

    def __str__(self) -> str:
        for scale, step in ((("TiB", "GiB", "MiB", "KiB"), 1024), (("TB", "GB", "MB", "kB"), 1000)):
            for power, unit in zip(range(4, 0, -1), scale, strict=True):
                if int(self) >= step**power and int(self) % step**power == 0:
                    return f"{int(self) // step**power}{unit}"
        return f"{int(self)}B"

    def __repr__(self) -> str:
        return f"Size({str(self)!r})"


class Rate(_Quantity, float):
    """Something per second, written "50/s", "600/m" or "3600/h"; at most a million a second."""

    _noun = "rate"
    _hint_unit = "/s"
    _examples = ("50/s", "0.5/s", "600/m")
    _scale: ClassVar[dict[str, Fraction]] = {"/s": Fraction(1), "/m": Fraction(1, 60), "/h": Fraction(1, 3600)}
    _pattern = rf"^{_DECIMAL}/[smh]$"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "50/s"; raise UnitError (a ValueError) for anything else."""
        return cls(float(_scaled(cls, text, cls._scale, 1_000_000)))

    def __str__(self) -> str:
        per_second, *others = [_written(self, scale, unit) for unit, scale in (("/s", 1), ("/m", 60), ("/h", 3600))]
        return per_second if len(per_second) <= _READABLE else min(per_second, *others, key=len)

    def __repr__(self) -> str:
        return f"Rate({str(self)!r})"


class Within:
    """An annotation that bounds a quantity: `Annotated[Duration, Within("1ms", "1h")]`; both ends are allowed.

    Out of range is a ValueError that names the range in the units people write. The JSON Schema carries the ends as
    `x-squall-minimum` and `x-squall-maximum`, since a schema cannot compare quantities written as text.
    """

    def __init__(self, least: str, most: str) -> None:
        self.least, self.most = least, most

    def __get_pydantic_core_schema__(self, source: type[_Quantity], handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        least, most = source.parse(self.least), source.parse(self.most)

        def check(value: Any) -> Any:
            if not least <= value <= most:
                raise UnitError(f"'{value}' is out of range: {self.least} to {self.most} is allowed")
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "x-squall-minimum": self.least, "x-squall-maximum": self.most}
