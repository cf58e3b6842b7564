"""Writes reports into the run's folder, each whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from squall.errors import InputError
from squall.reports.html import to_html
from squall.reports.json_format import to_json
from squall.reports.junit import to_junit
from squall.reports.loading import load_run
from squall.reports.markdown import to_markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from squall.reports.record import RunRecord

__all__ = ["FORMATS", "Format", "render", "write_record", "write_reports"]

Format = Literal["html", "markdown", "junit", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_RENDERERS: dict[str, tuple[str, Callable[[RunRecord], str]]] = {
    "html": ("report.html", to_html),
    "markdown": ("report.md", to_markdown),
    "junit": ("report.junit.xml", to_junit),
    "json": ("report.json", to_json),
}


def render(record: RunRecord, format: Format) -> str:  # noqa: A002 - the word that the command line uses
    """The report in one format; InputError for a format that there is not."""
    (known,) = _known([format])
    return _RENDERERS[known][1](record)


def write_reports(folder: Path, formats: Iterable[Format] = FORMATS, *, into: Path | None = None) -> dict[Format, Path]:
    """Build the reports of a run from its files and write them beside these, or `into` another folder.

    Returns where each is. A reader sees the old report or the new one, never half of one. InputError where the folder
    is no run's or a format is unknown; OSError where it cannot be written.
    """
    wanted = _known(formats)
    return write_record(load_run(Path(folder)), wanted, into=into)


def write_record(
    record: RunRecord, formats: Iterable[Format] = FORMATS, *, into: Path | None = None
) -> dict[Format, Path]:
    """The same for a run that was read already."""
    target = Path(into) if into is not None else record.folder
    return {name: _write(target / _RENDERERS[name][0], _RENDERERS[name][1](record)) for name in _known(formats)}


def _known(formats: Iterable[Format]) -> list[Format]:
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in _RENDERERS:
            raise InputError(f"there is no report format {name!r}; there are {', '.join(FORMATS)}")
    return wanted


def _write(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
