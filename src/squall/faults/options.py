"""A fault as command-line options: derived from its model, read back into it, errors said in terms of the options.

Plain data: whatever draws the command line (click, a web form) turns an `Option` into its own kind.
"""

from __future__ import annotations

import json
import re
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from squall.errors import InputError
from squall.units import Bandwidth, Drift, Duration, Offset, Rate, Ratio, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

    from squall.faults.base import Fault

__all__ = ["Option", "OptionKind", "fault_from_options", "fault_options"]

OptionKind = Literal["text", "number", "flag", "choice", "list", "mapping", "json"]
"""`flag` takes no value; `list` and `mapping` (KEY=VALUE) may be given several times; the others take one text."""


@dataclass(frozen=True)
class Option:
    """One option of a fault: `--new-path TEXT`."""

    name: str
    """With its strokes: `--new-path`."""
    field: str
    """The model's field: `new_path`."""
    kind: OptionKind
    metavar: str
    """What stands for its value in a help text: DURATION, KEY=VALUE, request|response; "" for a flag."""
    required: bool
    default: str
    """As it would be written; "" where there is none."""
    choices: tuple[str, ...]
    help: str

    @property
    def repeated(self) -> bool:
        """Whether it may be given several times."""
        return self.kind in ("list", "mapping")


def fault_options(model: type[Fault]) -> list[Option]:
    """The options of a fault: what is required first, then the model's own, then those shared by ever more faults."""
    options = [_option(name, info) for name, info in model.model_fields.items()]
    return sorted(options, key=lambda option: (not option.required, _remoteness(model, option.field)))


def _remoteness(model: type[Fault], field: str) -> int:
    """How far up a field is declared: 0 in the model itself."""
    return next(far for far, one in enumerate(model.__mro__) if field in vars(one).get("__annotations__", ()))


def fault_from_options(model: type[Fault], given: Mapping[str, object]) -> Fault:
    """The fault with what was given, by field: text, True for a flag, texts for a list or mapping; None or empty is not given.

    Raises InputError with every problem, each in terms of its option.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for option in fault_options(model):
        value = given.get(option.field)
        if value is None or value == () or (option.kind == "flag" and not value):
            continue
        try:
            values[option.field] = _value(option, value)
        except ValueError as error:
            problems.append(f"{option.name}: {error}")
    try:
        fault = model.model_validate(values)
    except ValidationError as error:
        spoilt = {problem.partition(":")[0] for problem in problems}
        for details in error.errors(include_url=False):
            about = _strokes(str(details["loc"][0])) if details["loc"] else ""
            if about not in spoilt and (about or not spoilt):  # what the fault says as a whole needs all of its parts
                problems.append(_said(model, about, details["type"], details["msg"]))
    if problems:
        raise InputError("\n".join(problems))
    return fault


def _option(name: str, info: FieldInfo) -> Option:
    kind, metavar, choices = _kind(info.annotation)
    return Option(
        name=_strokes(name),
        field=name,
        kind=kind,
        metavar=metavar,
        required=info.is_required(),
        default=_default(info),
        choices=choices,
        help=" ".join((info.description or "").replace("`", "").split()),
    )


def _strokes(name: str) -> str:
    return "--" + re.sub(r"(?<=[a-z])([A-Z])", r"-\1", name).lower().replace("_", "-")


def _default(info: FieldInfo) -> str:
    default = info.default
    if info.is_required() or default is None or isinstance(default, (bool, tuple, dict)):
        return ""
    return str(default)


_PLAIN: dict[Any, tuple[OptionKind, str]] = {
    bool: ("flag", ""),
    int: ("number", "NUMBER"),
    Any: ("json", "JSON"),
    tuple: ("list", "TEXT"),
    dict: ("mapping", "KEY=VALUE"),
    Duration: ("text", "DURATION"),
    Offset: ("text", "OFFSET"),
    Drift: ("text", "DRIFT"),
    Ratio: ("text", "PERCENTAGE"),
    Bandwidth: ("text", "BANDWIDTH"),
    Size: ("text", "SIZE"),
    Rate: ("text", "RATE"),
}


def _kind(annotation: Any) -> tuple[OptionKind, str, tuple[str, ...]]:
    bare = _bare(annotation)
    if get_origin(bare) is Literal:
        choices = tuple(str(choice) for choice in get_args(bare))
        return "choice", "|".join(choices), choices
    kind, metavar = _PLAIN.get(get_origin(bare) or bare, ("text", "TEXT"))
    return kind, metavar, ()


def _bare(annotation: Any) -> Any:
    """The type itself, without its annotations and without None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (member,) = [member for member in get_args(annotation) if member is not type(None)]
        return _bare(member)
    return annotation


def _value(option: Option, value: object) -> object:
    if option.kind == "number":
        if not re.fullmatch(r"-?[0-9]{1,18}", str(value)):
            raise ValueError(f"{value!r} is not a whole number")
        return int(str(value))
    if option.kind == "json":
        try:
            return json.loads(str(value), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON: {error}") from None
    if option.kind == "list":
        return tuple(_texts(value))
    if option.kind == "mapping":
        return dict(_pair(text) for text in _texts(value))
    return value


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r} is not KEY=VALUE")
    return key, value


def _no_constant(name: str) -> object:
    raise ValueError(f"JSON has no {name}")


def _said(model: type[Fault], about: str, kind: str, message: str) -> str:
    """A validation error as a user of options would say it: `newPath` in it is --new-path."""
    spellings = {info.alias or name for name, info in model.model_fields.items()}

    def option(match: re.Match[str]) -> str:
        word, _, value = match[1].partition(": ")
        return f"{_strokes(word)} {value}".rstrip() if word in spellings else match[0]

    what = "is required" if kind == "missing" else re.sub(r"`([^`]+)`", option, message.removeprefix("Value error, "))
    return f"{about}: {what}" if about else what
