"""Patterns that let a service ride faults out, and chaos inside it; see the README of squall-resilience.

What is named here is imported when it is first asked for: a service pays for the patterns that it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall_resilience.breaker import BreakerReading, BreakerSettings, CircuitBreaker

__version__ = "0.1.0"

__all__ = [
    "BreakerReading",
    "BreakerSettings",
    "CircuitBreaker",
]

_HOMES = {
    "BreakerReading": "breaker",
    "BreakerSettings": "breaker",
    "CircuitBreaker": "breaker",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
