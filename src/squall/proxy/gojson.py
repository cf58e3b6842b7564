"""Request bodies as Go's encoding/json reads them, and its complaints: clients of Toxiproxy match on those texts.

Names are matched in any case, what follows the first value is ignored, and a wrong type is named with Go's types.
"""

from __future__ import annotations

import json
from json.decoder import JSONDecodeError
from typing import TYPE_CHECKING, Final

from squall.proxy.refusals import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BadBody", "check_attributes", "fields_of", "read_body", "wrong_shape"]

_LITERALS: Final = ("true", "false", "null")
_GO_NAMES: Final = {"reset_peer": "Reset"}


class BadBody(Invalid):
    """A body that is no JSON, or not of the right shape."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"bad request body: {reason}")


class _Float(float):
    """A number as it was written."""

    written: str


def _keep_written(text: str) -> _Float:
    number = _Float(text)
    number.written = text
    return number


_DECODER = json.JSONDecoder(parse_float=_keep_written)


def read_body(body: bytes) -> object:
    """The first JSON value in a body; BadBody."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise BadBody("EOF")
    try:
        value: object = _DECODER.raw_decode(text)[0]
    except JSONDecodeError as error:
        raise BadBody(_complaint(text, error)) from error
    except RecursionError:
        raise BadBody("exceeded max depth") from None
    return value


def _complaint(text: str, error: JSONDecodeError) -> str:  # noqa: PLR0911 - a table
    position = error.pos
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    if error.msg.startswith("Unterminated string") or position >= len(text):
        return "unexpected EOF"
    character = _quoted(text[position])
    if error.msg.startswith("Expecting value"):
        return _no_value(text, position, character)
    if error.msg.startswith(("Expecting property name", "Illegal trailing comma before end of object")):
        at = text.find("}", position) if text[position] == "," else position
        return f"invalid character {_quoted(text[at])} looking for beginning of object key string"
    if error.msg.startswith("Illegal trailing comma"):
        return "invalid character ']' looking for beginning of value"
    if error.msg.startswith("Expecting ':'"):
        return f"invalid character {character} after object key"
    if error.msg.startswith("Expecting ','"):
        return f"invalid character {character} after {_container(text[:position])}"
    if error.msg.startswith("Invalid control character"):
        return f"invalid character {character} in string literal"
    return f"invalid character {character} in string escape code"


def _no_value(text: str, position: int, character: str) -> str:
    for literal in _LITERALS:
        if text[position] == literal[0]:
            for offset, expected in enumerate(literal):
                if position + offset >= len(text):
                    return "unexpected EOF"
                if text[position + offset] != expected:
                    return f"invalid character {_quoted(text[position + offset])} in literal {literal} (expecting {_quoted(expected)})"
    return f"invalid character {character} looking for beginning of value"


def _container(before: str) -> str:
    """What the innermost open container of this beginning would have been given: an array element or an object's pair."""
    opened: list[str] = []
    in_string = escaped = False
    for character in before:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            opened.append(character)
        elif character in "]}" and opened:
            opened.pop()
    return "array element" if opened and opened[-1] == "[" else "object key:value pair"


def _quoted(character: str) -> str:
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    return f"'{character}'" if character.isprintable() else f"'\\x{ord(character):02x}'"


def fields_of(value: object, names: Mapping[str, type], go_type: str) -> dict[str, object]:
    """The named fields of an object, matched in any case, each of its type; null counts as not given; BadBody.

    `go_type` is what the object is called in Go: "toxiproxy.Proxy".
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_shape(value, go_type)
    found: dict[str, object] = {}
    for key, item in value.items():
        name = key.lower()
        if name in names and item is not None:
            _check(item, names[name], f"{go_type.rpartition('.')[2]}.{name}", float_name="float32")
            found[name] = item
    return found


def wrong_shape(value: object, go_type: str) -> BadBody:
    """The complaint about a value that is not what `go_type` is read from."""
    return BadBody(f"json: cannot unmarshal {_kind(value)} into Go value of type {go_type}")


def check_attributes(kind: str, attributes: object, names: Mapping[str, type]) -> dict[str, object]:
    """The attributes of a toxic, matched in any case, the known ones of the right type; BadBody."""
    if attributes is None:
        return {}
    if not isinstance(attributes, dict):
        raise BadBody(
            f"json: cannot unmarshal {_kind(attributes)} into Go struct field ToxicWrapper.attributes of type toxics.NoopToxic"
        )
    go_name = _GO_NAMES.get(kind, "".join(part.capitalize() for part in kind.split("_")))
    found: dict[str, object] = {}
    for key, item in attributes.items():
        name = key if key in names else key.lower()
        if name in names and item is not None:
            int_name = "int" if kind == "slicer" else "int64"
            _check(item, names[name], f"{go_name}Toxic.attributes.{name}", int_name=int_name)
            found[name] = item
    return found


def _check(value: object, kind: type, where: str, *, int_name: str = "int64", float_name: str = "float64") -> None:
    names = {str: "string", bool: "bool", int: int_name, float: float_name}
    if kind not in names:
        return  # ours: the data plane says what is wrong with it
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return
    if type(value) is kind and not (kind is int and isinstance(value, int) and not -(1 << 63) <= value < 1 << 63):
        return
    shown = _kind(value)
    if kind is int and shown == "number":
        shown = f"number {value.written if isinstance(value, _Float) else value}"
    raise BadBody(f"json: cannot unmarshal {shown} into Go struct field {where} of type {names[kind]}")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
