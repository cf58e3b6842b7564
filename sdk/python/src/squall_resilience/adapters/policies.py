"""Which policy a request goes through, by the host that it is sent to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeAlias, TypeVar

from squall_resilience.policy.chain import Policy

__all__ = ["PolicyFor", "Routes"]

PolicyFor: TypeAlias = Policy | Mapping[str, Policy] | Callable[[str], Policy | None] | None
"""One policy for all requests; policies by `host:port` or host; a function of the origin (`http://host:port`); or none."""

C = TypeVar("C")


class Routes(Generic[C]):
    """The call to make for each origin: composed once for each policy, kept for as long as the client is.

    Origins are remembered, at most ORIGINS_MAX of them, policies by their identity.
    """

    ORIGINS_MAX = 10_000

    def __init__(self, policies: PolicyFor, compose: Callable[[Policy], C], bare: C) -> None:
        self._policies = policies
        self._compose = compose
        self._bare = bare
        self._by_origin: dict[tuple[str, str, int], C] = {}
        self._by_policy: dict[int, tuple[Policy, C]] = {}
        self._lock = threading.Lock()

    def of(self, scheme: str, host: str, port: int) -> C:
        """What a request to this origin goes through."""
        found = self._by_origin.get((scheme, host, port))
        return found if found is not None else self._find(scheme, host, port)

    def _find(self, scheme: str, host: str, port: int) -> C:
        policy = self._policy(scheme, host.lower(), port)
        with self._lock:
            if policy is None:
                call = self._bare
            else:
                known = self._by_policy.get(id(policy))
                if known is None:
                    known = self._by_policy[id(policy)] = policy, self._compose(policy)
                call = known[1]
            if len(self._by_origin) >= self.ORIGINS_MAX:
                self._by_origin.clear()
            self._by_origin[scheme, host, port] = call
        return call

    def _policy(self, scheme: str, host: str, port: int) -> Policy | None:
        policies = self._policies
        if policies is None:
            return None
        if isinstance(policies, Mapping):
            return policies.get(f"{host}:{port}") or policies.get(host)
        if isinstance(policies, Policy):
            return policies
        return policies(f"{scheme}://{host}:{port}")
