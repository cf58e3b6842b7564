"""All names that a library shows: modules, classes, functions, methods, parameters, fields.

Nobody can run what is not there. So "no" is said of a feature when none of the words that it would be called by is part
of any of these names.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import warnings
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["names_with", "public_names"]

DEPTH_MAX = 3
"""Modules below modules of a package that are looked at."""


def _modules(package: str) -> list[ModuleType]:
    found = [importlib.import_module(package)]
    for info in pkgutil.walk_packages(getattr(found[0], "__path__", []), f"{package}."):
        if "._" in info.name or info.name.count(".") > DEPTH_MAX:
            continue
        with suppress(ImportError):  # an integration of something that is not installed: its name is seen all the same
            found.append(importlib.import_module(info.name))
    return found


def _parameters(of: object) -> set[str]:
    with suppress(ValueError, TypeError):
        return {name for name in inspect.signature(of).parameters if name not in {"self", "cls", "args", "kwargs"}}  # type: ignore[arg-type]
    return set()


def _names_of(value: object) -> set[str]:
    names = _parameters(value) if callable(value) else set()
    if inspect.isclass(value):
        names |= {name for name in getattr(value, "__annotations__", {}) if not name.startswith("_")}
        for name, member in vars(value).items():
            if not name.startswith("_"):
                names |= {name} | (_parameters(member) if callable(member) else set())
    return names


@cache
def public_names(package: str) -> frozenset[str]:
    """Every name that does not begin with an underscore, through all modules that do not."""
    names: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = getattr(importlib.import_module(package), "__path__", [])
        names |= {info.name.removeprefix(f"{package}.") for info in pkgutil.walk_packages(path, f"{package}.")}
        for module in _modules(package):
            names.add(module.__name__.removeprefix(f"{package}."))
            for name in {*vars(module), *getattr(module, "__all__", ())}:
                value = getattr(module, name, None)
                home = getattr(value, "__module__", None) or package
                if name.startswith("_") or not str(home).startswith(package):
                    continue
                if not inspect.ismodule(value):
                    names |= {name} | _names_of(value)
    return frozenset(name for name in names if not re.search(r"(^|\.)_", name))


def names_with(package: str, words: tuple[str, ...]) -> set[str]:
    """The public names that hold one of these words, whatever their case."""
    return {name for name in public_names(package) if any(word in name.lower().replace("_", "") for word in words)}
