"""Which policy a request goes through, by the host that it is sent to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeAlias, TypeVar

from squall_resilience.policy.chain import Policy
from squall_resilience.policy.forks import renewed_in_children

__all__ = ["PolicyFor", "Routes"]

PolicyFor: TypeAlias = Policy | Mapping[str, Policy] | Callable[[str], Policy | None] | None
"""One policy for all requests; policies by `host:port` or host; a function of the origin (`http://host:port`); or none."""

ORIGINS_MAX = 10_000

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)


class _Compose(Protocol[C_co]):
    def __call__(self, policy: Policy | None, *, repeatable: bool) -> C_co: ...


class Routes(Generic[C]):
    """The call to make for each origin, for requests that may be sent twice and for others: composed once for each policy.

    At most ORIGINS_MAX origins are remembered.
    """

    def __init__(self, policies: PolicyFor, compose: _Compose[C]) -> None:
        self._policies = policies
        self._compose = compose
        self._by_origin: dict[tuple[str, str, int], tuple[C, C]] = {}
        self._by_policy: dict[int, tuple[Policy | None, tuple[C, C]]] = {}
        self._lock = threading.Lock()
        renewed_in_children(self)

    def renew_locks(self) -> None:
        """See `policy.forks`."""
        self._lock = threading.Lock()

    def of(self, scheme: str, host: str, port: int, *, repeatable: bool) -> C:
        """What a request to this origin goes through."""
        found = self._by_origin.get((scheme, host, port)) or self._find(scheme, host, port)
        return found[repeatable]

    def _find(self, scheme: str, host: str, port: int) -> tuple[C, C]:
        policy = self._policy(scheme, host.lower(), port)
        with self._lock:
            known = self._by_policy.get(id(policy))
            if known is None:
                calls = self._compose(policy, repeatable=False), self._compose(policy, repeatable=True)
                known = self._by_policy[id(policy)] = policy, calls
            if len(self._by_origin) >= ORIGINS_MAX:
                self._by_origin.clear()
            self._by_origin[scheme, host, port] = known[1]
        return known[1]

    def _policy(self, scheme: str, host: str, port: int) -> Policy | None:
        policies = self._policies
        if policies is None or isinstance(policies, Policy):
            return policies
        if isinstance(policies, Mapping):
            return policies.get(f"{host}:{port}") or policies.get(host)
        return policies(f"{scheme}://{host}:{port}")
