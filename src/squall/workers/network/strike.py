"""Drops, breaks or doubles packets in the kernel for as long as it lives: the mechanism "tc" of network faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squall.workers.holding import hold
from squall.workers.lifeline import Lifeline, run
from squall.workers.network.filter import Filter, enter_namespace, stand_by
from squall.workers.network.names import Names

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main", "stand_by"]


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, config: Mapping[str, Any]) -> None:
    names = Names(config.get("resolved", {}))
    enter_namespace(config)
    hold(line, Filter(config, names))
