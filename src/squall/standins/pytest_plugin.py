"""The pytest plugin of the stand-ins; loaded by every pytest that has Squall installed, so it imports nothing heavy."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from squall.standins import StandIn

__all__ = ["standin"]


@pytest.fixture
def standin() -> Iterator[Callable[..., StandIn]]:
    """What starts stand-ins in a test: called with a script it gives one that serves, with its `url`.

    When the test is over they are stopped, and it fails if a call was unexpected or an expectation unused.
    """
    from squall.standins import StandIn

    with ExitStack() as started:

        def start(script: object, *, host: str = "127.0.0.1", port: int = 0) -> StandIn:
            return started.enter_context(StandIn(script, host=host, port=port))  # type: ignore[arg-type]

        yield start
