"""Steps that tests do, and the certainty that nothing of them stays."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from squall.actions import Worker
from squall.actions.worker import end_workers, surviving
from tests import specimens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from squall.actions import Action

__all__ = ["beater", "doing", "token", "working"]


@pytest.fixture
def token() -> Iterator[str]:
    """A token of this test's own; whatever still carries it afterwards is a failure."""
    name = f"test-{os.urandom(4).hex()}/0"
    yield name
    left = surviving(name)
    end_workers(name)
    assert not left, f"the test left a worker running: {left}"


@pytest.fixture
def beater(tmp_path: Path) -> Iterator[specimens.Beater]:
    """A process that counts, so that it can be seen standing still."""
    with specimens.beater(tmp_path) as specimen:
        yield specimen


@contextmanager
def done(action: Action) -> Iterator[tuple[Action, tuple[int, ...]]]:
    """Prepare and do a step as the executor does; on the way out its descriptors are closed and it is undone."""
    prepared = action.prepare()
    held = tuple(prepared.do())
    try:
        yield prepared, held
    finally:
        for fd in held:
            os.close(fd)
        prepared.undo()
        look = prepared.verify()
        assert look.normal, look.detail


@pytest.fixture
def doing() -> Callable[[Action], AbstractContextManager[tuple[Action, tuple[int, ...]]]]:
    """A context: the step (and what it holds) is done on the way in; closed, undone and verified on the way out."""
    return done


@pytest.fixture
def working(token: str) -> Callable[..., AbstractContextManager[tuple[Worker, int]]]:
    """A context: a worker of that module with this configuration, and its life line."""

    @contextmanager
    def start(module: str, **config: object) -> Iterator[tuple[Worker, int]]:
        worker = Worker(token, f"squall.workers.{module}", f"test {module}", config)
        with done(worker) as (_, held):
            yield worker, held[0]

    return start
