"""A kernel that is not this machine's, if one can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.errors import CannotInject
from squall.lab import Kernel, Programs

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "debian"


@pytest.fixture(autouse=True)
def _cache_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a test runs."""
    monkeypatch.setenv("SQUALL_KERNELS", str(CACHE / "kernels"))
    monkeypatch.setenv("SQUALL_LAB", str(CACHE / "lab" / "root"))


@pytest.fixture
def kernel(_cache_of_this_checkout: None) -> Kernel:
    """Debian's 6.1, or the oldest there is."""
    try:
        Programs.find()
    except CannotInject as error:
        pytest.skip(str(error))
    found = {kernel.name: kernel for kernel in Kernel.cached()}
    if not found:
        pytest.skip("no other kernel is there; to have one: tools/debian-kernels 6.1")
    return found.get("6.1") or next(iter(found.values()))
