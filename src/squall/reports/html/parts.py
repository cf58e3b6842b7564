"""What several sections are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.reports.html.tags import Html, el

if TYPE_CHECKING:
    from collections.abc import Iterable

    from squall.reports.html.tags import Child

__all__ = ["pairs", "section"]


def section(name: str, title: str, *children: Child, note: str = "") -> Html:
    """A section with its heading."""
    heading = el("h2", title, id=f"{name}-title")
    return el(
        "section",
        heading,
        el("p", note, class_="note") if note else None,
        *children,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def pairs(facts: Iterable[tuple[str, Child]]) -> Html:
    """Names and what they stand for."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts), class_="pairs")
