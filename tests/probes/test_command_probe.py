"""A command's exit status is data, its time is bounded, and it leaves nothing running, whoever dies."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from squall.errors import InputError
from squall.kernel import proc
from squall.probes.command import CommandProbe
from squall.probes.spec import Probe
from tests.probes.waiting import anybody_runs, comes_true, descriptors, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def of(command: str, timeout: str = "5s") -> Probe:
    return Probe.model_validate({"name": "check", "command": command, "timeout": timeout})


def script(text: str) -> str:
    return shlex.join([sys.executable, "-I", "-S", "-c", text])


@asynccontextmanager
async def probing(command: str, bound: str = "5s") -> AsyncIterator[CommandProbe]:
    probe = CommandProbe(of(command, bound))
    try:
        yield probe
    finally:
        await probe.close()


def taken(command: str, timeout: str = "5s") -> tuple[str, int, str]:
    async def run() -> tuple[str, int, str]:
        async with probing(command, timeout) as probe:
            (sample,) = await probe.sample()
            assert sample.latency_ns > 0
            return sample.outcome, sample.detail, probe.last_failure

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("true", ("ok", 0, "")),
        ("false", ("error", 1, "exit status 1")),
        ("sh -c 'echo out; echo why >&2; exit 7'", ("error", 7, "exit status 7: out\nwhy")),
        ("sh -c 'kill -TERM $$'", ("error", 128 + signal.SIGTERM, "exit status 143")),
        ("sh -c 'test \"$0\" = \"a b\"' 'a b'", ("ok", 0, "")),
    ],
)
def test_what_a_command_says(command: str, wanted: tuple[str, int, str]) -> None:
    assert taken(command) == wanted


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    marker = f"probe-{tmp_path.name}-{os.getpid()}"
    assert taken(f"sh -c 'sleep 60 & exec sleep 61' {marker}", "150ms") == (
        "timeout",
        errno.ETIMEDOUT,
        "not done within 0.15 s",
    )
    both = shlex.join(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import subprocess, time; subprocess.Popen(['sleep', '62.5']); time.sleep(60) #{marker}",
        ]
    )
    assert taken(both, "300ms")[0] == "timeout"
    assert comes_true(lambda: not anybody_runs(marker))
    assert comes_true(lambda: not anybody_runs("62.5"))


def test_what_a_command_leaves_behind_is_ended_with_it() -> None:
    assert taken("sh -c 'sleep 63.25 & exit 0'")[0] == "ok"
    assert comes_true(lambda: not anybody_runs("63.25"))


def test_endless_output_neither_blocks_nor_grows() -> None:
    assert taken(script("import sys\nfor _ in range(400): sys.stdout.write('x' * 65536)"))[:2] == ("ok", 0)
    assert taken("yes", "200ms")[0] == "timeout"


def test_standard_input_is_empty() -> None:
    assert taken(script("import sys; sys.exit(len(sys.stdin.read()) + 5)"))[:2] == ("error", 5)


def test_many_runs_leave_no_zombie_and_no_descriptor() -> None:
    async def run() -> None:
        async with probing("true") as probe:
            await probe.sample()
            before = len(descriptors())
            for _ in range(20):
                (sample,) = await probe.sample()
                assert sample.outcome == "ok"
            assert len(descriptors()) == before

    others = set(proc.children_of(os.getpid()))  # of tests before this one
    asyncio.run(run())
    assert set(proc.children_of(os.getpid())) <= others


def test_a_cancelled_sample_ends_the_command() -> None:
    async def run() -> None:
        async with probing("sleep 64.75") as probe:
            task = asyncio.ensure_future(probe.sample())
            await until(lambda: anybody_runs("64.75"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert comes_true(lambda: not anybody_runs("64.75"))

    asyncio.run(run())


def test_a_command_does_not_outlive_an_owner_that_was_killed(tmp_path: Path) -> None:
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import asyncio\nfrom squall.probes.command import CommandProbe\nfrom squall.probes.spec import Probe\n"
        "asyncio.run(CommandProbe(Probe(name='x', command='sleep 66.125', timeout='60s')).sample())\n"
    )
    with subprocess.Popen([sys.executable, str(owner)]) as process:
        assert comes_true(lambda: anybody_runs("66.125"), 20)
        process.kill()
    assert comes_true(lambda: not anybody_runs("66.125"), 2)


def test_a_worker_that_was_killed_is_one_failed_sample() -> None:
    async def run() -> list[str]:
        async with probing("sleep 0.2") as probe:
            task = asyncio.ensure_future(probe.sample())
            await until(lambda: probe.worker_pid is not None)
            os.kill(probe.worker_pid or 0, signal.SIGKILL)
            return [(await task)[0].outcome, (await probe.sample())[0].outcome]

    assert asyncio.run(run()) == ["error", "ok"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-program --x", "no program 'no-such-program'"),
        ("sh -c 'open", "cannot be split into words"),
        ("''", "no program ''"),
        ("   ", "names no program"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_at_the_start(command: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        CommandProbe(of(command))
