"""The four acts: what the shop's settings file says in each, and what is shown by it.

An order counts only within 2 s, so the shop's own time-outs are shorter than the 3 s that the patterns have by default.
Each act adds to the one before; the services follow the file while they serve, and none is restarted.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

__all__ = ["ACTS", "Act"]

Settings = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """One playing of the same fault against the shop, under these settings."""

    name: str
    title: str
    says: str
    settings: Settings
    guarded: bool = False
    """Whether inventory is behind a breaker with a fallback, of which something is then expected."""


def _over(base: Settings, more: Settings) -> Settings:
    """Both together; where both are mappings, their keys are."""
    both = copy.deepcopy(base)
    for key, value in more.items():
        both[key] = _over(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def _client(seconds: float, connections: int) -> Settings:
    waits = {"read_timeout": seconds, "write_timeout": seconds, "pool_timeout": seconds}
    return {"connect_timeout": "250ms", **waits, "connections": connections, "per_host": connections, "idle": "60s"}


_BARE: Settings = {"shop": {"step": "bare"}}
_TIMED = _over(
    _BARE,
    {
        "shop": {"step": "time-outs"},
        "pools": {
            "order": _client(1.8, 64), "payment": _client(1.6, 32),
            "inventory": _client(0.3, 16), "notification": _client(0.3, 32),
        },
        "dependencies": {
            "order": {"timeout": {"limit": 1.8}}, "payment": {"timeout": {"limit": 1.6}},
            "inventory": {"timeout": {"limit": 0.3}}, "notification": {"timeout": {"limit": 0.3}},
        },
    },
)  # fmt: skip
_GUARDED = _over(
    _TIMED,
    {
        "shop": {"step": "breaker"},
        "dependencies": {
            "inventory": {
                "breaker": {
                    "failures_in_a_row": 5, "wait": "2s", "trials": 4, "trial_share": "20%", "trial_error_rate": 0,
                },
                "fallback": {"last_good": False},  # each order needs an answer of its own
            },
        },
    },
)  # fmt: skip
_LIMITED = _over(
    _GUARDED,
    {
        "shop": {"step": "limits"},
        "gateway": {"kept_for_high": 8, "wait": "500ms"},
        "order": {"kept_for_high": 4, "wait": "500ms", "workers": 48},
        "payment": {"kept_for_high": 2, "wait": "500ms"},
        "pools": {"payment": _client(1.6, 64)},
    },
)

ACTS = (
    Act(
        "bare", "bare",
        "One bare HTTP client between them: no time-out, no retry, no breaker.", _BARE,
    ),
    Act(
        "time-outs", "time-outs and pools",
        "No call waits longer than 1.8 s, inventory gets 0.3 s, and connections are pooled.", _TIMED,
    ),
    Act(
        "breaker", "+ breaker and fallback",
        "After 5 failures in a row nobody asks inventory for 2 s; payment sells from its price list, by hand.",
        _GUARDED, guarded=True,
    ),
    Act(
        "limits", "+ limits and priorities",
        "Nobody waits longer than 0.5 s for a worker, and some workers are kept for orders of high priority.",
        _LIMITED, guarded=True,
    ),
)  # fmt: skip
