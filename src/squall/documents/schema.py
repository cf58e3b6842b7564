"""What a pydantic model finds wrong with a document, as problems that say the place and what is allowed there.

Pydantic's locations hold labels of union members beside the keys; the document and the model are walked together
along a location to tell them apart and to know which keys are allowed where a key is unknown.
"""

from __future__ import annotations

import difflib
import re
import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from squall.documents.places import Path, Problem
    from squall.documents.reading import Document

__all__ = ["nearest", "problem_from_details", "problems_from_pydantic"]

_SHOWN_MAX = 60


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The allowed spelling that is closest to this word, or "" where none is close."""
    choices = list(allowed)
    folded = {choice.lower().replace("_", "").replace("-", ""): choice for choice in choices}
    same = folded.get(word.lower().replace("_", "").replace("-", ""))
    close = difflib.get_close_matches(word[:_SHOWN_MAX], choices, n=1, cutoff=0.6)
    return same or (close[0] if close else "")


def problems_from_pydantic(
    error: ValidationError, document: Document, model: type[BaseModel] | None = None, at: Path = ()
) -> list[Problem]:
    """Every error of a validation as a problem of the document.

    `at` is the path of what was validated; `model`, where it is given, tells which keys are allowed.
    """
    return [
        problem_from_details(details, document, model, at)
        for details in error.errors(include_url=False)
        if details["type"] != "default_factory_not_called"  # it only says that another error is in its way
    ]


def problem_from_details(
    details: ErrorDetails,
    document: Document,
    model: type[BaseModel] | None = None,
    at: Path = (),
    also: tuple[str, ...] = (),
) -> Problem:
    """One error of a validation as a problem of the document; `also` are keys that are allowed beside the model's own."""
    kind, context = details["type"], details.get("ctx", {})
    path, models, is_key = _resolve(details["loc"], document, model, at)
    if kind == "missing":
        return document.problem(path, "is missing")
    if kind == "extra_forbidden":
        fields = sorted({name for each in models for name in _fields(each)} | (set(also) if path[:-1] == at else set()))
        return document.problem(
            path, "is not known here", allowed=", ".join(fields), nearest=nearest(str(path[-1]), fields), key=True
        )
    if kind in {"literal_error", "enum", "union_tag_invalid"}:
        tag_field = str(context.get("discriminator", "")).strip("'")
        if kind == "union_tag_invalid":
            path = (*path, tag_field)
        value = context.get("tag", details["input"])
        choices = _quoted(str(context.get("expected", context.get("expected_tags", ""))))
        close = nearest(value, choices) if isinstance(value, str) else ""
        return document.problem(path, f"{_shown(value)} is not allowed here", allowed=", ".join(choices), nearest=close)
    if kind == "union_tag_not_found":
        tag_field = str(context.get("discriminator", "")).strip("'")
        return document.problem((*path, tag_field), "is missing: it says which kind this is")
    if kind in {"value_error", "assertion_error"}:
        return document.problem(path, str(context.get("error", details["msg"])), key=is_key)
    shown, form = _shown(details["input"]), ""
    if kind == "string_pattern_mismatch":
        form = _described(models, path[-1] if path else "") or str(context.get("pattern"))
    what = _WORDS.get(kind, ": " + details["msg"].removeprefix("Input ")).format_map(context)
    return document.problem(path, shown + what, allowed=form, key=is_key)


_WORDS = {
    "int_type": ": must be a whole number",
    "int_from_float": ": must be a whole number",
    "float_type": ": must be a number",
    "bool_type": ": must be true or false",
    "string_type": ": must be text: put it in quotes",
    "dict_type": ": must be a mapping",
    "model_type": ": must be a mapping",
    "model_attributes_type": ": must be a mapping",
    "list_type": ": must be a list",
    "tuple_type": ": must be a list",
    "greater_than": ": must be more than {gt}",
    "greater_than_equal": ": must be at least {ge}",
    "less_than": ": must be less than {lt}",
    "less_than_equal": ": must be at most {le}",
    "string_too_short": ": is too short: at least {min_length} characters are needed",
    "string_too_long": ": is too long: at most {max_length} characters are allowed",
    "too_short": ": at least {min_length} are needed",
    "too_long": ": at most {max_length} are allowed",
    "string_pattern_mismatch": " does not have the right form",
}
"""Pydantic's kinds of error in a document's terms; its own words where a kind is not listed."""


def _described(models: list[type[BaseModel]], key: str | int) -> str:
    """What the field of this key says of itself, in its first line."""
    for each in models:
        for name, info in each.model_fields.items():
            if key in (name, info.alias) and info.description:
                return info.description.split("\n")[0].rstrip(".")
    return ""


def _resolve(
    location: tuple[str | int, ...], document: Document, model: type[BaseModel] | None, at: Path
) -> tuple[Path, list[type[BaseModel]], bool]:
    """The document's path of a location, the models that hold its last step, and whether a key itself is meant."""
    path, holders, is_key = at, [model] if model else [], False
    candidates: list[Any] = [model] if model else []
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if step == "[key]" and last:
            is_key = True
            break
        below = _below(candidates, step)
        label = [each for each in candidates if _labelled(each, step)]
        if document.has((*path, step)) or below or (last and not label):
            holders = [each for each in candidates if _is_model(each)]
            path, candidates = (*path, step), below
        elif label:
            candidates = label
    return path, holders, is_key


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _labelled(annotation: Any, step: str | int) -> bool:
    """Whether pydantic may call this member of a union by this label."""
    if not _is_model(annotation):
        return getattr(annotation, "__name__", None) == step
    tags = [
        get_args(info.annotation) for info in annotation.model_fields.values() if get_origin(info.annotation) is Literal
    ]
    return bool(annotation.__name__ == step or any(step in values for values in tags))


def _below(candidates: list[Any], step: str | int) -> list[Any]:
    """What may stand under this key or index in any of the candidates, unions taken apart."""
    found: list[Any] = []
    for each in candidates:
        if _is_model(each):
            for name, info in each.model_fields.items():
                if step in (name, info.alias):
                    found.extend(_members(info.annotation))
            continue
        inner = [argument for argument in get_args(each) if argument is not Ellipsis]
        origin = get_origin(each)
        if isinstance(step, int) and origin in {list, tuple, set, frozenset} and inner:
            found.extend(_members(inner[min(step, len(inner) - 1)]))
        elif isinstance(step, str) and isinstance(origin, type) and issubclass(origin, dict) and len(inner) > 1:
            found.extend(_members(inner[1]))
    return found


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return [member for argument in get_args(annotation) for member in _members(argument)]
    return [annotation]


def _quoted(expected: str) -> list[str]:
    found = re.findall(r"'((?:[^'\\]|\\.)*)'", expected)
    return found or [part.strip() for part in re.split(r",| or ", expected) if part.strip()]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
