"""The texts below the fields of a class, from its module's source, which is read once."""

from __future__ import annotations

import ast
import inspect
import sys
import tokenize
from functools import cache

__all__ = ["attribute_docstrings"]


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Each annotated attribute of this class with the text that stands below it; empty where there is no source."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    return _of_module(file).get(cls.__qualname__, {}) if file else {}


@cache
def _of_module(file: str) -> dict[str, dict[str, str]]:
    try:
        with tokenize.open(file) as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):  # a package without its sources has no descriptions
        return {}
    return {node.name: _of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found
