"""What the models of faults and documents share: they, their mappings and their JSON values cannot change and have a hash."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    Strict,
    WithJsonSchema,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from squall.faults.docstrings import attribute_docstrings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["FrozenDict", "FrozenMapping", "FrozenModel", "JsonBody", "JsonPatch", "Rows", "said", "thaw"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_DEEPEST = 64
"""JSON nested deeper than this is refused: nothing sends it, and every walker of it would need a bound."""


class FrozenModel(BaseModel):
    """The base of what stands in a document: frozen, strict (`"5"` is no number), camelCase keys, nothing unknown."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True, validate_default=True,
        serialize_by_alias=True, allow_inf_nan=False, defer_build=True,
    )  # fmt: skip

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Take each field's docstring as its description.

        Pydantic's own way (`use_attribute_docstrings`) reads and tokenizes the source once a class: half of what
        importing the models cost. With `defer_build` a validator is built when it is first needed.
        """
        super().__pydantic_init_subclass__(**kwargs)
        docstrings = attribute_docstrings(cls)
        for name, info in cls.model_fields.items():
            if info.description is None and name in docstrings:
                info.description = docstrings[name]

    @model_serializer(mode="wrap")
    def _what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return said(self, handler(self))


def said(model: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    """What was serialized, without what is empty by default: an absent key says the same."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        empty = value is None or (isinstance(value, (str, tuple, dict)) and not value)
        if empty and value == info.get_default(call_default_factory=True, validated_data=dict(model.__dict__)):
            data.pop(info.alias or name, None)
    return data


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed and so has a hash; equal to a plain dict of the same items."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a fault's and an experiment's mappings cannot be changed: make a new model with `model_copy`")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict says it has none; this one cannot change
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: object) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return (FrozenDict, (dict(self),))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(dict)  # only asked for defaults: fields are declared as FrozenMapping


FrozenMapping = Annotated[dict[K, V], AfterValidator(FrozenDict)]
"""A field that is written as a mapping and is a FrozenDict in the model."""

Rows = Annotated[tuple[T, ...], Strict(strict=False)]
"""A field that is written as a list and is a tuple in the model."""


def _freeze(value: object, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not text, as JSON's keys are: put it in quotes")  # noqa: TRY004 - pydantic
        return FrozenDict({key: _freeze(item, depth + 1) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item, depth + 1) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON has no {value}")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"{value!r} is not a JSON value: put it in quotes if it is text")


def thaw(value: object) -> Any:
    """A frozen JSON value as plain dicts and lists, for `json.dumps` and for people."""
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item) for item in value]
    return value


def _body(value: object) -> Any:
    if value is not None and not isinstance(value, (dict, list, tuple, str)):
        raise ValueError(f"{value!r} is neither text nor a mapping nor a list: put it in quotes to send it as text")
    return _freeze(value)


def _patch(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("a JSON merge patch is a mapping, such as {price: 0, discount: null}")  # noqa: TRY004 - pydantic
    frozen: Mapping[str, object] = _freeze(value)
    return frozen


JsonBody = Annotated[
    Any, PlainValidator(_body), PlainSerializer(thaw), WithJsonSchema({"type": ["object", "array", "string", "null"]})
]
"""What is sent: a mapping or list as JSON, text as it is, or nothing."""

JsonPatch = Annotated[Any, PlainValidator(_patch), PlainSerializer(thaw), WithJsonSchema({"type": "object"})]
"""A JSON merge patch (RFC 7396)."""
