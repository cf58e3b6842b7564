"""What every test can ask for: a state folder of its own, and real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import measured, servers
from tests.kernel_world import (  # noqa: F401 - hooks and a fixture: tests marked `kernel` have a world of their own
    kernel_world,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


hypothesis.settings.register_profile("fast", max_examples=20, deadline=None)
"""For `make test-fast`, which asks for it by --hypothesis-profile."""


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUALL_STATE", str(tmp_path_factory.mktemp("squall-state")))
        yield


@pytest.fixture(autouse=True)
def _workers_are_measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers do is counted in the coverage, in the tests that are about that."""
    if request.path.relative_to(request.config.rootpath / "tests").parts[0] in measured.FOLDERS:
        measured.measure_workers(monkeypatch)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[servers.RedisServer]:
    """A real, empty Redis (`.host`, `.port`) for one test."""
    folder = tmp_path / "redis-server"
    folder.mkdir()
    with servers.redis(folder) as server:
        yield server


@pytest.fixture(scope="session")
def _prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.PrometheusServer]:
    """Started once for all tests."""
    with servers.prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def prometheus_server(_prometheus: servers.PrometheusServer) -> Iterator[servers.PrometheusServer]:
    """A real Prometheus (`.url`, `.query(promql)`, `.scrape(job, address)`); what it scrapes for a test ends with it."""
    yield _prometheus
    _prometheus.rest()
