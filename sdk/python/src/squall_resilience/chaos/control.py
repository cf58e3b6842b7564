"""NAME.json: the faults that Squall has switched on, read whole or not at all."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

from squall_resilience.chaos.decision import Rule
from squall_resilience.chaos.settings import DELAY_MAX_S, TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTROL_MOST", "FAULTS_MOST", "Malformed", "parse"]

CONTROL_MOST = 65_536
FAULTS_MOST = 64
_VERSION = 1
_DELAY_MOST_NS = int(DELAY_MAX_S * 1e9)
_FRAMING = {"content-length", "transfer-encoding", "connection"}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
_FIELDS = {
    "id", "require_header", "header", "sample", "method", "path", "headers", "delay_min_ns", "delay_max_ns",
    "abort_status", "abort_body", "abort_headers", "seed",
}  # fmt: skip


class Malformed(ValueError):
    """The file is not what the protocol says; the message names the first place."""


def parse(data: bytes) -> tuple[Rule, ...]:
    """The faults of a control file, in its order. Raises Malformed."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    _need(
        isinstance(whole, dict) and set(whole) == {"version", "run", "faults"}, "version, run and faults, and no more"
    )
    _need(type(whole["version"]) is int and whole["version"] == _VERSION, f"version {_VERSION}")
    _need(isinstance(whole["run"], str), "run: a text")
    faults = whole["faults"]
    _need(isinstance(faults, list) and len(faults) <= FAULTS_MOST, f"faults: a list of at most {FAULTS_MOST}")
    rules = tuple(_rule(one, f"faults[{number}]") for number, one in enumerate(faults))
    _need(len({rule.fault for rule in rules}) == len(rules), "faults: ids that are unique")
    return rules


def _rule(given: object, where: str) -> Rule:
    _need(isinstance(given, dict) and set(given) == _FIELDS, f"{where}: exactly {', '.join(sorted(_FIELDS))}")
    fault = cast("dict[str, object]", given)
    for name in ("id", "header", "method", "path", "abort_body"):
        _need(isinstance(fault[name], str), f"{where}.{name}: a text")
    _need(fault["id"] != "", f"{where}.id: not empty")
    _need(TOKEN.fullmatch(cast("str", fault["header"])) is not None, f"{where}.header: a header's name")
    _need(isinstance(fault["require_header"], bool), f"{where}.require_header: true or false")
    low, high = (
        _whole(fault, "delay_min_ns", _DELAY_MOST_NS, where),
        _whole(fault, "delay_max_ns", _DELAY_MOST_NS, where),
    )
    _need(low <= high, f"{where}.delay_min_ns: at most delay_max_ns")
    status = None if fault["abort_status"] is None else _whole(fault, "abort_status", 599, where)
    _need(status is None or status >= 200, f"{where}.abort_status: 200 to 599, or null")  # noqa: PLR2004
    sample = fault["sample"]
    if isinstance(sample, bool) or not isinstance(sample, (int, float)) or not 0 <= sample <= 1:
        raise Malformed(f"{where}.sample: 0 to 1")
    return Rule(
        fault=cast("str", fault["id"]),
        require_header=cast("bool", fault["require_header"]),
        header=cast("str", fault["header"]),
        sample=float(sample),
        method=cast("str", fault["method"]),
        path=cast("str", fault["path"]),
        headers=_headers(fault["headers"], f"{where}.headers"),
        delay_min_ns=low,
        delay_max_ns=high,
        abort_status=status,
        abort_share=0.0 if status is None else 1.0,
        abort_body=cast("str", fault["abort_body"]),
        abort_headers=_answered(fault["abort_headers"], f"{where}.abort_headers"),
        seed=_whole(fault, "seed", (1 << 64) - 1, where),
    )


def _headers(given: object, where: str) -> Mapping[str, str]:
    _need(isinstance(given, dict), f"{where}: an object")
    for name, value in cast("dict[str, object]", given).items():
        _need(TOKEN.fullmatch(name) is not None, f"{where}: {name!r} is no header's name")
        _need(isinstance(value, str), f"{where}.{name}: a text")
    return cast("dict[str, str]", given)


def _answered(given: object, where: str) -> Mapping[str, str]:
    """What is sent must neither end the header nor frame the message otherwise than it is framed."""
    headers = _headers(given, where)
    for name, value in headers.items():
        _need(name.lower() not in _FRAMING, f"{where}: {name} is not for an answer's author")
        _need(_CONTROL_CHARACTERS.search(value) is None, f"{where}.{name}: no control characters")
    return headers


def _whole(fault: Mapping[str, object], name: str, most: int, where: str) -> int:
    value = fault[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Malformed(f"{where}.{name}: a whole number from 0 to {most}")
    return value


def _need(right: bool, what: str) -> None:  # noqa: FBT001 - it is an assertion
    if not right:
        raise Malformed(what)
