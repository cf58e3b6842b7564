"""Writes the reference pages that derive from the code, before each build, into docs/reference/generated.

The folder is ignored by git. A page is rewritten only when its text changes, so that a second build is quick.

General layout: `schema` puts JSON Schema into words; `faults`, `document`, `events` and `commands` each return pages as
a mapping of file name to Markdown; `setup` is Sphinx's hook.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reference_pages import commands, document, events, faults

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["pages", "setup", "write"]


def pages() -> dict[str, str]:
    """Every generated page by its name below docs/reference/generated."""
    return {**faults.pages(), **document.pages(), **events.pages(), **commands.pages()}


def write(folder: Path) -> None:
    """Make the folder hold exactly the generated pages."""
    wanted = {folder / name: text for name, text in pages().items()}
    for old in folder.rglob("*.md"):
        if old not in wanted:
            old.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "reference" / "generated"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
