"""Settings files: JSON and TOML by the standard library, YAML where PyYAML or ruamel.yaml is installed."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from squall_resilience.errors import Problem, ResilienceError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BYTES_MAX", "Unreadable", "parse", "reader_of"]

BYTES_MAX = 1_000_000
"""A settings file is read by a person; what is longer is something else."""


class Unreadable(ResilienceError, ValueError):
    """The text is not what its name says: it may be half written, or wrong."""


def parse(text: bytes, name: str) -> dict[str, Any]:
    """The mapping that a settings file holds; `name` ends in .json, .toml, .yaml or .yml.

    An empty file is an empty mapping. Raises Unreadable for what cannot be parsed (it may not be whole yet), SettingsError
    for what can and is no settings file all the same.
    """
    read = reader_of(name)
    if len(text) > BYTES_MAX:
        raise _refusal(name, f"{len(text)} bytes", f"at most {BYTES_MAX} bytes")
    try:
        found = read(text.decode("utf-8-sig"))
    except SettingsError:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{name} cannot be parsed: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _refusal(name, f"a {type(found).__name__}", "a mapping of sections: dependencies, pools, ...")
    return found


def reader_of(name: str) -> Callable[[str], object]:
    """What reads a file of this name. Raises SettingsError when nothing here does, saying what to do."""
    ending = name.rpartition(".")[2].lower()
    if ending == "json":
        return _json
    if ending == "toml":
        return tomllib.loads
    if ending in {"yaml", "yml"}:
        return _yaml_reader(name)
    raise _refusal(name, f"the ending {ending!r}", "one of .json, .toml, .yaml, .yml")


def _refusal(name: str, said: str, allowed: str) -> SettingsError:
    return SettingsError((Problem(name, said, allowed),), source=name)


def _json(text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SettingsError(tuple(Problem(name, "this name, twice", "there once") for name in twice), source="JSON")
        return found

    return json.loads(text, object_pairs_hook=once) if text.strip() else None


def _yaml_reader(name: str) -> Callable[[str], object]:
    try:
        from ruamel.yaml import YAML  # refuses names that stand twice
        from ruamel.yaml.error import YAMLError
    except ImportError:
        return _pyyaml_reader(name)

    def read(text: str) -> object:
        try:
            return YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise ValueError(str(error)) from error

    return read


def _pyyaml_reader(name: str) -> Callable[[str], object]:
    try:
        import yaml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise _refusal(
            name,
            "YAML, on a Python without a YAML library,",
            "readable here: write it as .json or .toml, or install PyYAML or ruamel.yaml",
        ) from None

    def read(text: str) -> object:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error

    return read
