"""What a pattern must know of gRPC: which statuses are failures, what may be sent twice, what is carried along.

Deadlines are carried natively: a call has what is left of the one it is part of, and a handler what its caller left it.
The statuses are those of gRPC's doc/statuscodes.md; the pushback is that of its proposal A6 (client retries).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc  # type: ignore[import-untyped]

from squall_resilience.deadline import HEADER, at_most, check
from squall_resilience.policy.chain import Policy
from squall_resilience.propagation import outgoing

__all__ = ["FailedCall", "GrpcRules", "PolicyFor", "failure_of", "made_ready", "policy_for", "priority"]

PolicyFor: TypeAlias = Policy | Mapping[str, Policy] | Callable[[str], Policy | None] | None
"""One policy for all calls; policies by service ("shop.Stock"); a function of the service; or none."""

PUSHBACK = "grpc-retry-pushback-ms"
_PUSHBACK_MOST_MS = 86_400_000
_Code = grpc.StatusCode

priority: ContextVar[str | None] = ContextVar("squall_resilience.grpc_priority", default=None)
"""That of the call that is being served: calls made for it have it too."""


class FailedCall(Exception):
    """A call that counts as a failure of its service, with gRPC's own call.

    `retry_after` is the pushback that the server asks for, in seconds; None when it asks for none.
    """

    link = "transport"

    def __init__(self, call: Any, code: Any, retry_after: float | None) -> None:
        super().__init__(f"answered {code.name}")
        self.call = call
        self.code = code
        self.retry_after = retry_after


class _PassingFailure(FailedCall, ConnectionError):
    """Another attempt may not meet it again."""


class _LateCall(FailedCall, TimeoutError):
    """The call took longer than it was given."""


@dataclass(frozen=True)
class GrpcRules:
    """What counts as a failure of the service that answered, and what may be sent twice."""

    failures: frozenset[Any] = frozenset({
        _Code.UNKNOWN, _Code.DEADLINE_EXCEEDED, _Code.RESOURCE_EXHAUSTED, _Code.INTERNAL, _Code.UNAVAILABLE, _Code.DATA_LOSS,
    })  # fmt: skip
    """Statuses that speak of the service; others (NOT_FOUND, INVALID_ARGUMENT) speak of the request, and are answers."""
    passing: frozenset[Any] = frozenset({_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED})
    """Failures after which another attempt makes sense."""
    idempotent: tuple[str, ...] = ()
    """Methods that may be carried out twice: "/shop.Stock/Get", or with a `*` at the end, "/shop.Stock/Get*"."""
    priority_key: str = "x-priority"
    """The metadata that says a call's priority; see squall_resilience.server.pools."""

    def may_repeat(self, method: str) -> bool:
        """Whether a call of this method may be sent again."""
        return any(method.startswith(one[:-1]) if one.endswith("*") else method == one for one in self.idempotent)


def failure_of(call: Any, code: Any, trailing: Any, rules: GrpcRules) -> FailedCall | None:
    """What a finished call is to a chain: a failure, or None for an answer."""
    if code not in rules.failures:
        return None
    asked = _pushback(trailing)
    if code is _Code.DEADLINE_EXCEEDED:
        return _LateCall(call, code, asked)
    return (_PassingFailure if code in rules.passing else FailedCall)(call, code, asked)


def _pushback(trailing: Any) -> float | None:
    for key, value in trailing or ():
        if key == PUSHBACK and isinstance(value, str) and value.isascii() and value.isdigit():
            return min(int(value), _PUSHBACK_MOST_MS) / 1000
    return None


class _Details(grpc.ClientCallDetails):  # type: ignore[misc]  # grpcio has no types
    """A call's details with another time-out and metadata."""

    def __init__(self, given: Any, timeout: float | None, metadata: Any) -> None:
        self.method, self.timeout, self.metadata = given.method, timeout, metadata
        self.credentials = getattr(given, "credentials", None)
        self.wait_for_ready = getattr(given, "wait_for_ready", None)
        self.compression = getattr(given, "compression", None)


def made_ready(details: Any, rules: GrpcRules, timeout: float | None = None, *, kept: bool = False) -> Any:
    """The details to send a call with: the time that is left, the trace and the priority go along.

    `kept`: with this time-out, whatever the deadline is by now. Raises DeadlineExceeded when no time is left.
    """
    check()
    metadata = list(details.metadata or ())
    names = {key.lower() for key, _ in metadata}
    given = outgoing(names)
    given.pop(HEADER.lower(), None)  # gRPC writes it itself, from the time-out
    metadata += [(key, value) for key, value in given.items() if value.isascii()]
    level = priority.get()
    if level is not None and rules.priority_key not in names:
        metadata.append((rules.priority_key, level))
    return _Details(details, timeout if kept else at_most(details.timeout), metadata or None)


def policy_for(policies: PolicyFor, method: str) -> Policy | None:
    """That of the method's service."""
    if policies is None or isinstance(policies, Policy):
        return policies
    service = method.strip("/").rpartition("/")[0]
    return policies.get(service) if isinstance(policies, Mapping) else policies(service)
