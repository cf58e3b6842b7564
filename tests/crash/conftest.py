"""A few worlds that run cells side by side: a cell mostly waits."""

from __future__ import annotations

import contextlib
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WORLDS = int(os.environ.get("SQUALL_CRASH_WORLDS", "0")) or (os.cpu_count() or 1) + 1
ACCOUNT = pytest.StashKey[list[str]]()


@dataclass
class Crew:
    """Does something for each of many cells, each in a world that no other cell uses meanwhile."""

    worlds: list[World]
    _points: dict[str, list[str]]

    def each(self, cells: Iterable[Any], do: Callable[[World, Any], object]) -> None:
        """Call `do(world, cell)` for every cell; raises the first failure when all are done."""
        free: queue.SimpleQueue[World] = queue.SimpleQueue()
        for world in self.worlds:
            free.put(world)

        def one(cell: Any) -> None:
            world = free.get()
            try:
                do(world, cell)
            except BaseException:
                world.start_over()
                raise
            finally:
                free.put(world)

        with ThreadPoolExecutor(len(self.worlds)) as pool:
            failures = [error for error in (work.exception() for work in [pool.submit(one, c) for c in cells]) if error]
        if len(failures) > 1:
            failures[0].add_note(f"and {len(failures) - 1} more cells failed: {[str(e)[:200] for e in failures[1:]]}")
        if failures:
            raise failures[0]

    def account(self) -> list[str]:
        """How many cells there were, and how long the machine took to be normal again."""
        lines = [f"crash matrix: {sum(world.cells for world in self.worlds)} cells"]
        for name in sorted({name for world in self.worlds for name in world.took_ms}):
            took = sorted(ms for world in self.worlds for ms in world.took_ms.get(name, ()))
            lines.append(
                f"  normal again {name}: {len(took)} times, median {took[len(took) // 2]:.0f} ms, "
                f"p99 {took[len(took) * 99 // 100]:.0f} ms, most {took[-1]:.0f} ms"
            )
        return lines

    def points(self, scenario: str) -> list[str]:
        """The names of all points of a run of this scenario that nobody kills."""
        if scenario not in self._points:
            self._points[scenario] = self.worlds[0].points(scenario)
            ended = self.worlds[0].run(scenario, death="none")
            self.worlds[0].expect_normal(ended)
        return self._points[scenario]


@pytest.fixture(scope="session")
def crew(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Crew]:
    """Worlds on this machine's own disk, one more than it has CPUs (SQUALL_CRASH_WORLDS: so many)."""
    with contextlib.ExitStack() as stack:
        one = Crew([stack.enter_context(World(tmp_path_factory.mktemp("world"), n)) for n in range(WORLDS)], {})
        yield one
    pytestconfig.stash[ACCOUNT] = one.account()


@pytest.fixture
def world(crew: Crew) -> World:
    """One of them."""
    return crew.worlds[0]


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose state folder is on a file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system: run the tests with sudo to see this")
    with World(tmp_path_factory.mktemp("small-world"), 9, disk_megabytes=2) as one:
        yield one


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cells there were and how long the machine took to be normal again."""
    for line in terminalreporter.config.stash.get(ACCOUNT, []):
        terminalreporter.write_line(line)
