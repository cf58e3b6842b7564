"""A pytest plugin for guests: of a test with many cases, one is run, and another kernel runs another one.

Python is an order of magnitude slower in a guest: every test on every kernel takes minutes, every case an hour.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["chosen", "pytest_collection_modifyitems"]


@pytest.hookimpl(trylast=True)  # after those that the marks leave out are out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave one case of each test, by the kernel's release."""
    kept = chosen([item.nodeid for item in items], os.uname().release)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


def chosen(names: Sequence[str], release: str) -> set[str]:
    """One name of those that differ in their [parameters] only."""
    cases: dict[str, list[str]] = {}
    for name in names:
        cases.setdefault(name.partition("[")[0], []).append(name)
    number = zlib.crc32(release.encode())
    return {several[number % len(several)] for several in cases.values()}
