"""YAML and JSON files as plain values that remember where they stood, and errors that say the place.

A document is read from the parser's events, never built from tags: no types but mappings (with text keys), lists,
text, whole numbers, finite numbers, true/false and null, by the YAML 1.2 core rules (`on` and `yes` are text). Size,
depth and number of values are bounded, aliases counted at their full size, so that no small file becomes a large one.

General layout: `Document`; `read`/`load` and their `_all` forms (text to documents); `_Builder` (events to nodes);
`_scalar` (the core rules).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from squall.documents.places import PROBLEMS_MAX, DocumentError, Path, Place, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path as FilePath

__all__ = ["Document", "load", "load_all", "read", "read_all"]

BYTES_MAX = 1_048_576
DEPTH_MAX = 64
VALUES_MAX = 50_000
_SHOWN_MAX = 80


@dataclass
class _Node:
    value: Any
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)
    children: dict[str | int, _Node] = field(default_factory=dict)
    weight: int = 1
    height: int = 1


@dataclass(frozen=True)
class Document:
    """A value read from a file (`value`: dict, list, str, int, float, bool or None) that knows its places.

    Aliased values are shared: treat `value` as read-only.
    """

    value: Any
    source: str
    text: str = field(repr=False)
    _root: _Node = field(repr=False)

    def where(self, path: Path = (), *, key: bool = False) -> Place:
        """The place of the value (`key`: of its key) at this path, or of the nearest parent that exists."""
        node, key_place = self._root, self._root.place
        for step in path:
            child = node.children.get(step)
            if child is None:
                return node.place
            key_place = node.keys.get(str(step), child.place) if isinstance(step, str) else child.place
            node = child
        return key_place if key else node.place

    @classmethod
    def of(cls, value: Any, source: str) -> Document:
        """A value that was never a file: its problems give `source` and the path, no line."""
        return cls(value, source, "", _Node(value, Place(source)))

    def has(self, path: Path) -> bool:
        """Whether there is a value (a null too) at this path."""
        value = self.value
        for step in path:
            if isinstance(value, dict) and step in value:  # noqa: SIM114 - mypy tells the branches apart
                value = value[step]
            elif isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return False
        return True

    def problem(self, path: Path, what: str, *, allowed: str = "", nearest: str = "", key: bool = False) -> Problem:
        """A problem at this path, with its place."""
        return Problem(self.where(path, key=key), path, what, allowed, nearest)


def read(path: FilePath) -> Document:
    """The one document in this file; DocumentError when it cannot be read, is not UTF-8, too large or wrong."""
    return _only(read_all(path), str(path))


def read_all(path: FilePath) -> tuple[Document, ...]:
    """Every document in this file, at least one; DocumentError as for `read`."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DocumentError([Problem(Place(str(path)), (), f"cannot be read: {reason}")]) from None
    return load_all(data, str(path))


def load(text: str | bytes, source: str) -> Document:
    """The one document in this text; `source` is the name that errors give. DocumentError for anything wrong."""
    return _only(load_all(text, source), source)


def load_all(text: str | bytes, source: str) -> tuple[Document, ...]:
    """Every document in this text (parted by `---`), at least one; DocumentError for anything wrong in any of them."""
    decoded = _decode(text, source)
    builder = _Builder(source)
    try:
        roots = builder.build(decoded)
    except _Stopped:
        roots = []
    if not roots and not builder.problems:
        builder.problem(Place(source), (), "is empty: a document is expected")
    if builder.problems:
        raise DocumentError(builder.problems)
    return tuple(Document(root.value, source, decoded, root) for root in roots)


def _only(documents: tuple[Document, ...], source: str) -> Document:
    if len(documents) > 1:
        place = documents[1].where()
        raise DocumentError([Problem(place, (), f"a second document begins here, {source} must hold one")])
    return documents[0]


def _decode(text: str | bytes, source: str) -> str:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(data) > BYTES_MAX:
        what = f"is larger than {BYTES_MAX // 1024} KiB, which is the most that is read"
        raise DocumentError([Problem(Place(source), (), what)])
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sound = data[: error.start]
        place = Place(source, sound.count(b"\n") + 1, error.start - (sound.rfind(b"\n") + 1) + 1)
        raise DocumentError([Problem(place, (), f"is not UTF-8: byte 0x{data[error.start]:02x}")]) from None


class _Stopped(Exception):  # noqa: N818 - not an error: the problem is already noted
    """Reading cannot go on; the problem is noted."""


@dataclass
class _Open:
    """A mapping or list whose end has not been seen."""

    node: _Node
    anchor: str | None
    path: Path
    key: str | None = None
    key_place: Place | None = None
    merged: list[_Node] = field(default_factory=list)


class _Builder:
    """Builds nodes from the parser's events, without recursion."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._anchors: dict[str, _Node | None] = {}
        self._open: list[_Open] = []
        self._values = 0

    def problem(self, place: Place, path: Path, what: str) -> None:
        self.problems.append(Problem(place, path, what))
        if len(self.problems) > PROBLEMS_MAX:
            raise _Stopped

    def build(self, text: str) -> list[_Node]:
        roots: list[_Node] = []
        for event in self._events(text):
            place = Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1)
            node: _Node | None = None
            if isinstance(event, DocumentStartEvent):
                self._anchors = {}
            elif isinstance(event, ScalarEvent):
                node = self._scalar(event, place)
            elif isinstance(event, AliasEvent):
                node = self._alias(event.anchor, place)
            elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
                self._start(event, place, {} if isinstance(event, MappingStartEvent) else [])
            elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
                node = self._end()
                place = node.place
            if node is not None and (root := self._attach(node, place)) is not None:
                roots.append(root)
        return roots

    def _events(self, text: str) -> Iterator[Any]:
        if _ENDLESS_TAG.search(text):  # the parser would take half a minute for a mebibyte of it
            self.problem(Place(self.source), (), "holds a tag without an end")
            raise _Stopped
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(self.source, mark.line + 1, mark.column + 1) if mark else Place(self.source)
            self.problem(place, (), _syntax(error.context, error.problem))
            raise _Stopped from None
        except ReaderError as error:
            before = text[: error.position]
            place = Place(self.source, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
            self.problem(place, (), f"the character U+{ord(text[error.position]):04X} is not allowed in a document")
            raise _Stopped from None
        except _Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - the parser meets input it was not made for: still an answer, no traceback
            self.problem(Place(self.source), (), f"cannot be read as YAML: {_short(str(error))}")
            raise _Stopped from None

    def _path(self) -> Path:
        if not self._open:
            return ()
        top = self._open[-1]
        if isinstance(top.node.value, list):
            return (*top.path, len(top.node.value))
        return top.path if top.key is None else (*top.path, top.key)

    def _count(self, weight: int, place: Place) -> None:
        self._values += weight
        if self._values > VALUES_MAX:
            self.problem(place, self._path(), f"holds more than {VALUES_MAX} values, aliases counted in full")
            raise _Stopped

    def _deep(self, height: int, place: Place) -> None:
        if len(self._open) + height > DEPTH_MAX:
            self.problem(place, (), f"is nested more than {DEPTH_MAX} deep")
            raise _Stopped

    def _scalar(self, event: Any, place: Place) -> _Node:
        self._count(1, place)
        plain = event.implicit[0] and event.style in (None, "")
        tag = str(event.tag) if event.tag else None
        top = self._open[-1] if self._open else None
        if not event.value and plain and top is not None and top.key is not None:
            place = top.key_place or place  # an empty value has no place: the parser gives that of what comes next
        try:
            value = _scalar(event.value, plain=plain, tag=tag)
        except ValueError as error:
            self.problem(place, self._path(), str(error))
            value = None
        node = _Node(value, place)
        if event.anchor:
            self._anchors[event.anchor] = node
        if top is not None and isinstance(top.node.value, dict) and top.key is None:
            node.value = _joined(event.value)  # a key is text, whatever it looks like
        return node

    def _alias(self, anchor: str, place: Place) -> _Node:
        node = self._anchors.get(anchor)
        if node is None:
            what = "refers to itself" if anchor in self._anchors else "is not defined before this place"
            self.problem(place, self._path(), f"the alias *{_short(anchor)} {what}")
            node = _Node(None, place)
        self._count(node.weight, place)
        self._deep(node.height, place)
        return node

    def _start(self, event: Any, place: Place, value: Any) -> None:
        self._count(1, place)
        self._deep(1, place)
        if event.tag and str(event.tag) not in {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self.problem(place, self._path(), f"the tag {_short(str(event.tag))} is not allowed: values are plain")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(_Node(value, place), event.anchor, self._path()))

    def _end(self) -> _Node:
        top = self._open.pop()
        for merged in top.merged:
            for key, child in merged.children.items():
                if key not in top.node.children:
                    top.node.children[key] = child
                    top.node.value[key] = child.value
                    top.node.keys[str(key)] = merged.keys.get(str(key), child.place)
        children = top.node.children.values()
        top.node.weight = 1 + sum(child.weight for child in children)
        top.node.height = 1 + max((child.height for child in children), default=0)
        if top.anchor:
            self._anchors[top.anchor] = top.node
        return top.node

    def _attach(self, node: _Node, place: Place) -> _Node | None:
        """Put a finished value where it belongs; a root is returned."""
        if not self._open:
            return node
        top = self._open[-1]
        if isinstance(top.node.value, list):
            top.node.children[len(top.node.value)] = node
            top.node.value.append(node.value)
        elif top.key is None:
            top.key = node.value if isinstance(node.value, str) else None
            top.key_place = place
            if top.key is None:
                self.problem(place, top.path, "a key must be text")
                top.key = "?"
        else:
            self._entry(top, node)
        return None

    def _entry(self, top: _Open, node: _Node) -> None:
        key, place = top.key or "", top.key_place or node.place
        top.key = None
        if key == "<<":
            sources = list(node.children.values()) if isinstance(node.value, list) else [node]
            if not all(isinstance(source.value, dict) for source in sources):
                self.problem(node.place, (*top.path, key), "only a mapping, or a list of mappings, can be merged")
                return
            for source in sources:
                self._count(source.weight, place)
            top.merged.extend(sources)
        elif key in top.node.children:
            first = top.node.keys[key].line
            self.problem(place, (*top.path, key), f"is given twice, first in line {first}")
        else:
            top.node.children[key] = node
            top.node.keys[key] = place
            top.node.value[key] = node.value


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def _syntax(context: str | None, problem: str | None) -> str:
    if problem and "'\\t'" in problem:
        return "a tab cannot indent YAML: use spaces"
    parts = [part for part in (context, problem) if part]
    return "is not YAML: " + ", ".join(_short(part) for part in parts)


_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_CORE = "tag:yaml.org,2002:"
_ENDLESS_TAG = re.compile(r"!\S{65536}")
_DIGITS_MAX = 300


def _scalar(text: str, *, plain: bool, tag: str | None) -> str | int | float | bool | None:
    """The value of a scalar by the YAML 1.2 core rules; ValueError for what is not allowed here."""
    if tag is not None:
        if tag not in {"!", f"{_CORE}str"}:
            raise ValueError(f"the tag {_short(tag)} is not allowed: values are plain")
        return _joined(text)
    if not plain:
        return _joined(text)
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    number = _number(text)
    return _joined(text) if number is None else number


def _number(text: str) -> int | float | None:
    is_int, is_based = _INT.fullmatch(text), _BASED.fullmatch(text)
    if not (is_int or is_based or _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text)):
        return None
    shown = _short(text)
    if len(text) > _DIGITS_MAX:
        raise ValueError(f"the number {shown} has too many digits")
    if is_int:
        return int(text)
    if is_based:
        return int(text[2:], 8 if text[1] == "o" else 16)
    number = math.inf if _NOT_FINITE.fullmatch(text) else float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown} is not finite")
    return number


def _joined(text: str) -> str:
    r"""The text with pairs of \uD8xx\uDCxx escapes (as JSON writes them) joined; ValueError for half a pair."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
