"""Where each link of a chain belongs, from the transport outwards, and why there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from squall_resilience.errors import ResilienceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall_resilience.pattern import Pattern

__all__ = ["ORDER", "RANK", "Place", "WrongOrder", "check_order"]


@dataclass(frozen=True)
class Place:
    """One link's place."""

    kind: str
    """The pattern's kind, and its section in a settings file."""
    does: str
    """What it does there, in a few words."""
    why: str
    """Why it is outside of what comes before it in ORDER, and inside of what comes after."""


ORDER: tuple[Place, ...] = (
    Place(
        "timeout",
        "bounds one attempt",
        "it is next to the transport, so each attempt has a limit of its own, and to everything outside a call that hangs"
        " is a call that failed",
    ),
    Place(
        "adaptive_concurrency",
        "bounds calls under way by what the latency allows",
        "outside of the time-out, a call that was cut off tells it that there were too many; inside of breaker and bulkhead"
        " it learns from calls that are sent, not from refusals, which take no time, nor from a wait in a queue",
    ),
    Place(
        "breaker",
        "leaves a dependency alone that fails",
        "outside of the time-out it sees slow calls as failures, and a refusal within says nothing to it; inside of"
        " limits and retries it judges every attempt by itself",
    ),
    Place(
        "bulkhead",
        "bounds calls under way, and those that wait",
        "it holds a slot for one attempt only: inside of the retry, for a call that backs off needs none, and outside of the"
        " time-out, whose limit is the dependency's, not the queue's",
    ),
    Place(
        "rate_limiter",
        "bounds attempts a second",
        "inside of retry and hedge every attempt costs a token, not every call; outside of the bulkhead a call that has no"
        " token takes up no slot",
    ),
    Place(
        "hedge",
        "sends a second copy when the first is slow",
        "outside of all limits, which then count the second copy like any call; inside of the retry, which comes in when"
        " both copies have failed",
    ),
    Place(
        "retry",
        "sends a failed call again, within its budget",
        "outside of everything that can fail or refuse: each attempt passes all of it anew",
    ),
    Place(
        "deadline",
        "bounds the whole call",
        "it is the caller's patience, so it bounds all attempts and the waits between them; inside of the fallback, which"
        " answers also when time is up",
    ),
    Place(
        "fallback",
        "answers from elsewhere when all else failed",
        "outermost: whatever stopped the call, and wherever, it has an answer; and no retry takes a preset answer for a"
        " good one",
    ),
)
RANK = {place.kind: rank for rank, place in enumerate(ORDER)}


class WrongOrder(ResilienceError, ValueError):
    """Links stand in an order in which they would not do what they are for; the message says why."""


def check_order(dependency: str, links: Sequence[Pattern]) -> None:
    """Links from the inside outwards; patterns of kinds that are not in ORDER may stand anywhere.

    Raises WrongOrder for the first pair that stands the wrong way round, and for two of one kind.
    """
    known = [link.kind for link in links if link.kind in RANK]
    for inner, outer in pairwise(known):
        if inner == outer:
            raise WrongOrder(
                f"{dependency}: two links are a {inner}; a chain has one of each kind", dependency=dependency
            )
        if RANK[inner] > RANK[outer]:
            raise WrongOrder(
                f"{dependency}: {inner} stands inside of {outer} and belongs outside of it: {ORDER[RANK[inner]].why}; the"
                f" order from the inside is {', '.join(place.kind for place in ORDER)}",
                dependency=dependency,
            )
