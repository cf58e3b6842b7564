"""A YAML document in colour: enough of the syntax to be read easily, never changing or losing a character."""

from __future__ import annotations

import re

from squall.reports.html.tags import Html, el, escaped, join

__all__ = ["coloured"]

_TOKEN = re.compile(
    r"""(?P<comment>(?:(?<=\s)|^)\#.*)
      | (?P<key>[A-Za-z_][\w.-]*(?=\s*:(?:\s|$)))
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')
      | (?P<number>(?<![\w.])-?\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d|%|/s|/m|/h|[kMGT]i?B|[kmg]?bit)*(?![\w.:]))
      | (?P<sign>[{}\[\],]|(?:(?<=\s)|^)-(?=\s))""",
    re.VERBOSE,
)


def coloured(source: str) -> Html:
    """The source with its comments, keys, strings and numbers marked; every character is escaped."""
    return join([[_line(line), "\n"] for line in source.split("\n")])


def _line(line: str) -> Html:
    parts: list[Html] = []
    position = 0
    for match in _TOKEN.finditer(line):
        parts.append(escaped(line[position : match.start()]))
        parts.append(el("span", match[0], class_=f"y-{match.lastgroup}"))
        position = match.end()
    parts.append(escaped(line[position:]))
    return join(parts)
