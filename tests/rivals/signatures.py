"""A function decorated by each library, for a type checker."""

from __future__ import annotations

__all__ = ["KEEPS"]

_IMPORTS = {
    "squall-resilience": ("from squall_resilience import CircuitBreaker", 'CircuitBreaker("rival")'),
    "circuitbreaker": ("import circuitbreaker", "circuitbreaker.CircuitBreaker()"),
    "pybreaker": ("import pybreaker", "pybreaker.CircuitBreaker()"),
    "hyx": ("import hyx.circuitbreaker", "hyx.circuitbreaker.consecutive_breaker()"),
    "purgatory": ("import purgatory", 'purgatory.SyncCircuitBreakerFactory()("rival")'),
    "pyresilience": ("import pyresilience", "pyresilience.resilient(retry=pyresilience.RetryConfig())"),
    "interlock-cb": ("import interlock", 'interlock.CircuitBreaker(name="rival")'),
    "tenacity": ("import tenacity", "tenacity.retry(stop=tenacity.stop_after_attempt(3))"),
    "stamina": ("import stamina", "stamina.retry(on=ValueError)"),
}

_LOOKS = {"hyx": r"Coroutine\[.*bool\]$", "tenacity": r"\[\[sku: str, amount: int =\], bool\]$"}


def _lines(number: int, library: str) -> str:
    imports, decorator = _IMPORTS[library]
    head = f"{'async ' if library == 'hyx' else ''}def order_{number}(sku: str, amount: int = 1) -> bool:"
    return f"{imports}\n\n@{decorator}\n{head}\n    return True\n\nreveal_type(order_{number})\n"


KEEPS = {library: (_lines(number, library), _LOOKS.get(library, "")) for number, library in enumerate(_IMPORTS)}
"""The lines to check, and what else the type may look like."""
