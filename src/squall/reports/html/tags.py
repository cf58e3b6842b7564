"""HTML and SVG by construction: whatever is not `Html` already is escaped on its way in, so nothing can be forgotten."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, TypeAlias

from squall.reports.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Child", "Html", "el", "escaped", "join", "trusted"]

_VOID = frozenset({"br", "circle", "hr", "image", "input", "line", "link", "meta", "path", "rect", "stop", "use"})


class Html(str):
    """Markup that was built by `el` or comes from this package's own files."""

    __slots__ = ()


Child: TypeAlias = "str | float | Iterable[Child] | None"


def trusted(markup: str) -> Html:
    """Markup of our own that needs no escaping: never call it on anything read from a run."""
    return Html(markup)


def escaped(text: object) -> Html:
    """Foreign text: control characters made visible, then escaped for element content and attribute values alike."""
    return Html(html.escape(printable(text), quote=True))


def join(children: Child) -> Html:
    """Children in a row; strings that are no Html are escaped, None vanishes."""
    if children is None:
        return Html()
    if isinstance(children, Html):
        return children
    if isinstance(children, str | int | float):
        return escaped(children)
    return Html("".join(join(child) for child in children))


def el(tag: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element; in attribute names `_` stands for `-`, a trailing one is dropped (`class_`); None and False are left out."""
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = name.rstrip("_").replace("_", "-")
        parts.append(spelled if value is True else f'{spelled}="{_attribute(value)}"')
    opening = " ".join(parts)
    if tag in _VOID and not children:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(children)}</{tag}>")


def _attribute(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escaped(value)
