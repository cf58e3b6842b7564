"""`squall run` on every file in examples/, on a real shop, ends with the verdict that the file's first lines announce.

Each example says in its first lines how to start what it hits. The test starts the same on free ports, so that nothing
that is already on this machine is hit, and puts those ports into the document.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from squall.experiment.document import read_experiment
from squall.experiment.schema import document_schema
from squall.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
DOCUMENTED = {"gateway": 8080, "order": 8081, "payment": 8082, "inventory": 8083, "notification": 8084}
WAY_IN = 18083
LOOP = "while :; do python3 -m http.server 18090 --bind 127.0.0.1; sleep 0.2; done"
SQUALL = shutil.which("squall", path=str(Path(sys.executable).parent)) or "squall"
EXITS = {"passed": 0, "failed": 1, "aborted": 3}
INCONCLUSIVE = 6
ATTEMPTS = 4
AT_ONCE = 1
"""So many examples run beside each other: more would make a small machine too busy to judge them."""


def head(path: Path) -> str:
    """The comment at an example's top, as one line."""
    lines = path.read_text().split("apiVersion:")[0].splitlines()
    return " ".join(" ".join(line.lstrip("# ") for line in lines).split())


def announced(path: Path) -> tuple[str, int]:
    """The verdict and exit status that an example announces."""
    found = re.search(r"Verdict: (\w+) \(exit status (\d)\)", head(path))
    assert found, f"{path.name} does not announce a verdict"
    return found[1], int(found[2])


def free_port() -> int:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Started:
    """What an example hits, running: each documented port and the one that stands for it."""

    ports: dict[int, int]
    pids: dict[str, int]

    def put_into(self, text: str) -> str:
        for documented, port in self.ports.items():
            text = re.sub(rf"\b{documented}\b", str(port), text)
        return text


@contextmanager
def started(path: Path, folder: Path) -> Iterator[Started]:
    """What the example's first lines say to start."""
    said = head(path)
    if LOOP in said:
        with restarting(folder) as port:
            yield Started({18090: port}, {})
        return
    assert "python demo/shop" in said, f"{path.name} does not say what to start"
    way_in = free_port()
    url = f"http://127.0.0.1:{way_in}" if f"--to inventory=http://127.0.0.1:{WAY_IN}" in said else None
    with Shop(inventory_url=url) as shop:
        ports = {documented: int(shop.urls[name].rpartition(":")[2]) for name, documented in DOCUMENTED.items()}
        yield Started({**ports, WAY_IN: way_in}, dict(shop.pids))


@contextmanager
def restarting(folder: Path) -> Iterator[int]:
    """A file server that a shell's loop starts again whenever it ends."""
    port = free_port()
    (folder / "served").mkdir()
    loop = LOOP.replace("18090", str(port)).replace("python3", sys.executable)
    with subprocess.Popen(
        ["sh", "-c", loop],
        cwd=folder / "served",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as shell:
        try:
            deadline = time.monotonic() + 15
            while not answers(port):
                assert time.monotonic() < deadline, "the file server did not start"
                time.sleep(0.05)
            yield port
        finally:
            os.killpg(shell.pid, 9)


@dataclass
class Ran:
    """How one example ended."""

    exit_status: int
    said: str
    stopped: list[str]
    left: list[int]


def run(path: Path, folder: Path) -> Ran:
    """Run an example; again, a few times at most, where this machine is too busy to tell: Squall says so, or its load does."""
    for attempt in range(ATTEMPTS):
        (folder / str(attempt)).mkdir()
        ran = run_once(path, folder / str(attempt))
        said_so = ran.exit_status == INCONCLUSIVE and "too busy" in " ".join(ran.said.split())
        crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
        if ran.exit_status == announced(path)[1] or not (said_so or crowded):
            break
    return ran


def run_once(path: Path, folder: Path) -> Ran:
    with ExitStack() as stack:
        target = stack.enter_context(started(path, folder))
        document = folder / path.name
        document.write_text(target.put_into(path.read_text()))
        done = subprocess.run(
            [SQUALL, "run", "--quiet", str(document)],
            env={**os.environ, "SQUALL_STATE": str(folder / "state")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        states = {
            name: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            for name, pid in target.pids.items()
        }
        stopped = [name for name, state in states.items() if state in "Tt"]
        left = [port for documented, port in target.ports.items() if documented == WAY_IN and answers(port)]
        return Ran(done.returncode, done.stdout + done.stderr, stopped, left)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ran]]]:
    """The runs of all examples that this session asks for, two at a time."""
    wanted = {
        item.callspec.params["path"] for item in request.session.items if getattr(item, "originalname", "") == RUN_TEST
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {path.name: pool.submit(run, path, tmp_path_factory.mktemp(path.stem)) for path in sorted(wanted)}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_ends_as_it_announces_and_leaves_nothing(path: Path, runs: dict[str, Future[Ran]]) -> None:
    ran = runs[path.name].result()
    verdict, exit_status = announced(path)
    assert (ran.exit_status, verdict in ran.said) == (exit_status, True), ran.said
    assert ran.stopped == []
    assert ran.left == []


RUN_TEST = test_an_example_ends_as_it_announces_and_leaves_nothing.__name__


def test_there_are_examples_for_every_family_and_verdict() -> None:
    families = {step.fault.type.partition(".")[0] for path in EXAMPLES for step in read_experiment(path).faults}
    assert families == {"process", "tcp", "http", "stress"}
    assert {announced(path)[0] for path in EXAMPLES} == set(EXITS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_named_after_its_file_and_says_what_to_expect(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.name == path.stem
    assert experiment.description
    assert f"squall run examples/{path.name}" in head(path)
    verdict, exit_status = announced(path)
    assert EXITS[verdict] == exit_status


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_an_example(path: Path) -> None:
    from jsonschema import Draft202012Validator

    from squall.documents import read

    assert list(Draft202012Validator(document_schema()).iter_errors(read(path).value)) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_dry_run_of_an_example_shows_the_plan_or_what_is_missing(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    for port in (*DOCUMENTED.values(), WAY_IN, 18090):
        text = re.sub(rf"\b{port}\b", str(free_port()), text)
    (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [SQUALL, "run", "--dry-run", "--json", str(tmp_path / path.name)],
        env={**os.environ, "SQUALL_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 4), done.stderr
    assert json.loads(done.stdout) if done.returncode == 0 else done.stderr
    assert "Traceback" not in done.stderr
