"""Which calls may be carried out twice: declared for all, by their arguments, or by a mark on the function."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["declared", "idempotent"]

P = ParamSpec("P")
R = TypeVar("R")

_MARK = "__squall_idempotent__"


def idempotent(call: Callable[P, R]) -> Callable[P, R]:
    """Declare that doing this twice is the same as doing it once: it may be sent again after a failure, or hedged."""
    setattr(call, _MARK, True)
    return call


def declared(
    call: Callable[..., object],
    said: bool | Callable[..., bool],  # noqa: FBT001 - no flag: it is what the pattern was made with
    by_setting: Callable[[], bool],
) -> Callable[..., bool]:
    """What says of a call's arguments whether it may be carried out twice; a function of them has the last word."""
    if callable(said):
        return said
    always = said or bool(getattr(call, _MARK, False))
    return lambda *_args, **_kwargs: always or by_setting()
