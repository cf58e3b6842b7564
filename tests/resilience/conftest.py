"""What the tests of squall-resilience share."""

from __future__ import annotations

import pytest

from tests.resilience.worlds import World


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """The library that the parameter names; see `both` in worlds."""
    return World(request.param)
