"""Chaos inside a service: requests that an author, an operator or an experiment chose are delayed or aborted.

Off unless switched on, with an end, a kill switch and, where an experiment drives it, a lease. `asgi`, `wsgi` and `grpc`
hold the middlewares, each `ChaosMiddleware(app)` or an interceptor; this package what they share. No module in here
imports a framework but `grpc`; sdk/PROTOCOL.md says how requests are decided about, the same in every language.
"""

from __future__ import annotations

import time

from squall_resilience.chaos import decision
from squall_resilience.chaos.middleware import Chaos
from squall_resilience.chaos.settings import ChaosSettings

__all__ = ["Chaos", "ChaosSettings", "sign"]


def sign(secret: str, now: float | None = None) -> str:
    """The value of the chaos header that counts with this secret, within 300 s of `now` (seconds since 1970, else the clock's)."""
    return decision.sign(secret, time.time() if now is None else now)
