"""The load: open-loop, honest about itself, never an orphan."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import InputError, SquallError
from squall.probes.load import LoadProcess, LoadReport
from squall.probes.spec import Load
from tests.probes.waiting import anybody_runs, comes_true, descriptors, running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from squall.probes.samples import Sample
    from tests.probes.conftest import RunningService


def load(url: str, rate: str | None = "200/s", timeout: str = "5s", **fields: Any) -> Load:
    return Load.model_validate({"http": {"url": url, "timeout": timeout}, **({"rate": rate} if rate else {}), **fields})


class Taken(list["Sample"]):
    """Samples as they come, and waiting for them."""

    async def until(self, enough: Callable[[Taken], bool], seconds: float = 10.0) -> None:
        await until(lambda: enough(self), seconds)


def some(wanted: Load, count: int = 60, seed: int = 7) -> tuple[Taken, LoadReport]:
    """At least so many samples of a load, and its last report."""

    async def run() -> tuple[Taken, LoadReport]:
        taken = Taken()
        async with LoadProcess(wanted, seed=seed, on_samples=taken.extend) as process:
            await taken.until(lambda found: len(found) >= count)
            report = await process.stop()
        return taken, report

    return asyncio.run(run())


def outcomes(samples: Taken) -> set[tuple[str, int]]:
    return {(sample.outcome, sample.detail) for sample in samples}


def test_requests_are_meant_for_even_times_and_all_are_counted(service: RunningService) -> None:
    taken, report = some(load(service.url()))
    assert outcomes(taken) == {("ok", 200)}
    times = sorted(sample.time_ns for sample in taken)
    assert {b - a for a, b in pairwise(times)} == {5_000_000}
    assert report.sent == report.answered == len(taken)
    assert report.late_p50_ns <= report.late_p99_ns <= report.late_max_ns
    assert 0 < report.cpu_ns < report.wall_ns


def test_the_seed_decides_where_in_its_period_the_first_request_falls(service: RunningService) -> None:
    def phase(seed: int) -> float:
        return LoadProcess(load(service.url()), seed=seed, on_samples=lambda _: None)._order.phase

    assert phase(1) == phase(1) != phase(2)
    assert all(0 <= phase(seed) < 1 for seed in range(100))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/chunked", ("ok", 200)),
        ("/close", ("ok", 200)),
        ("/until-close", ("ok", 200)),
        ("/big", ("ok", 200)),
        ("/status/503", ("error", 503)),
        ("/status/302", ("ok", 302)),
        ("/garbage", ("error", errno.EPROTO)),
        ("/drop", ("error", errno.EPROTO)),
        ("/reset", ("error", errno.ECONNRESET)),
    ],
)
def test_what_a_load_makes_of_an_answer(service: RunningService, path: str, wanted: tuple[str, int]) -> None:
    taken, report = some(load(service.url(path), "100/s"), 10)
    assert outcomes(taken) == {wanted}
    assert report.unsent == report.unreported == 0


def test_an_answer_that_drips_is_one_answer(says: Callable[[list[bytes]], int]) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    taken, _ = some(load(f"http://127.0.0.1:{says([data[n : n + 1] for n in range(len(data))])}/", "50/s"), 5)
    assert outcomes(taken) == {("ok", 200)}


def test_a_request_with_a_body_arrives_whole(service: RunningService) -> None:
    wanted = Load.model_validate(
        {"http": {"url": service.url("/echo"), "method": "POST", "body": "x" * 3_000_000}, "rate": "10/s"}
    )
    taken, _ = some(wanted, 3)
    assert outcomes(taken) == {("ok", 200)}


def test_nobody_listening_is_refused_and_the_load_goes_on(
    nobody: int, start_service: Callable[[int], RunningService]
) -> None:
    async def run() -> Taken:
        taken = Taken()
        async with LoadProcess(
            load(f"http://127.0.0.1:{nobody}/", "100/s"), seed=1, on_samples=taken.extend
        ) as process:
            await taken.until(lambda found: len(found) >= 10)
            assert outcomes(taken) == {("refused", errno.ECONNREFUSED)}
            start_service(nobody)
            await taken.until(lambda found: found[-1].outcome == "ok")
            assert process.behind == ""
        return taken

    asyncio.run(run())


@pytest.mark.slow
def test_connections_are_used_again(service: RunningService) -> None:
    async def run() -> int:
        taken = Taken()
        async with LoadProcess(load(service.url(), "100/s"), seed=1, on_samples=taken.extend) as process:
            await taken.until(lambda found: len(found) >= 100)
            return sum(link.startswith("socket:") for link in descriptors(process.pid or 0))

    assert asyncio.run(run()) <= 10  # one, but for moments in which an answer was late


def test_a_request_is_given_up_after_its_time_whatever_the_others_do(service: RunningService) -> None:
    taken, report = some(load(service.url("/hang"), "100/s", "200ms"), 20)
    assert outcomes(taken) == {("timeout", errno.ETIMEDOUT)}
    assert min(sample.latency_ns for sample in taken) >= 200_000_000
    assert report.sent == report.answered  # those that were open at the end ran into it as well
    assert report.unsent == 0


@pytest.mark.slow
def test_a_stall_is_felt_by_every_request_meant_for_it(service: RunningService) -> None:
    """No coordinated omission: a second of stall is a second's requests with latencies from a second down to nothing."""

    async def run() -> Taken:
        taken = Taken()
        async with LoadProcess(load(service.url(), "200/s"), seed=3, on_samples=taken.extend) as process:
            await taken.until(lambda found: len(found) >= 100)
            service.pause()
            await asyncio.sleep(1.0)
            service.resume()
            await taken.until(lambda found: len(found) >= 500)
            assert process.behind == ""
        return taken

    taken = asyncio.run(run())
    times = sorted(sample.time_ns for sample in taken)
    assert {b - a for a, b in pairwise(times)} == {5_000_000}
    slow = sorted((sample for sample in taken if sample.latency_ns > 100_000_000), key=lambda sample: sample.time_ns)
    assert 150 <= len(slow) <= 220  # 900 ms of the stall at 200/s; a closed loop would have had one
    ends = [sample.time_ns + sample.latency_ns for sample in slow]
    assert max(ends) - min(ends) < 500_000_000  # they all ended when the stall did: the ramp
    assert slow[0].latency_ns > slow[len(slow) // 2].latency_ns > slow[-1].latency_ns
    latencies = sorted(sample.latency_ns for sample in taken)
    assert latencies[len(latencies) * 95 // 100] > 500_000_000


@pytest.mark.slow
def test_more_in_flight_than_allowed_is_unsent_and_says_so(service: RunningService) -> None:
    taken, report = some(load(service.url("/hang"), "200/s", connections=10), 50)
    assert outcomes(taken) == {("unsent", errno.EAGAIN)}
    assert (report.in_flight, report.abandoned, report.unsent_late, report.unsent_local) == (10, 10, 0, 0)
    assert report.unsent_full == report.unsent == len(taken)
    assert "raise `connections`" in report.behind


@pytest.mark.slow
def test_a_report_says_how_old_the_oldest_open_request_is(service: RunningService) -> None:
    async def run() -> LoadReport:
        async with LoadProcess(load(service.url("/hang"), "50/s"), seed=1, on_samples=lambda _: None) as process:
            await until(lambda: process.report.oldest_ns > 400_000_000)
            return process.report

    report = asyncio.run(run())
    assert report.in_flight >= 15
    assert report.answered == 0


@pytest.mark.slow
def test_a_generator_that_was_not_run_says_so(service: RunningService) -> None:
    async def run() -> tuple[Taken, str]:
        taken = Taken()
        async with LoadProcess(load(service.url(), "200/s"), seed=1, on_samples=taken.extend) as process:
            await taken.until(lambda found: len(found) >= 20)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            await asyncio.sleep(1.5)
            os.kill(process.pid, signal.SIGCONT)
            await taken.until(lambda found: any(sample.outcome == "unsent" for sample in found))
            await process.stop()
            return taken, process.behind

    taken, behind = asyncio.run(run())
    assert ("unsent", errno.EBUSY) in outcomes(taken)
    assert "did not run the load" in behind
    late = [sample for sample in taken if sample.outcome == "ok" and sample.latency_ns > 500_000_000]
    assert late  # what was sent late, but not too late, has that in its latency


@pytest.mark.slow
def test_a_profile_steps_and_ramps(service: RunningService) -> None:
    profile = [{"rate": "50/s", "hold": "400ms"}, {"rate": "400/s", "ramp": "200ms"}]
    taken, _ = some(load(service.url(), None, profile=profile), 200)
    times = sorted(sample.time_ns for sample in taken)
    begin = times[0]
    first = sum(one - begin < 380_000_000 for one in times)
    then = sum(640_000_000 <= one - begin < 740_000_000 for one in times)
    assert 18 <= first <= 21
    assert then == pytest.approx(40, abs=2)


@pytest.mark.slow
def test_https_is_spoken(tls_service: int) -> None:
    taken, report = some(load(f"https://localhost:{tls_service}/", "50/s"), 20)
    assert outcomes(taken) == {("ok", 200)}
    assert report.unsent == 0


def test_https_checks_the_certificate(tls_service: int) -> None:
    taken, _ = some(load(f"https://127.0.0.1:{tls_service}/", "50/s"), 5)
    assert outcomes(taken) == {("error", errno.EPROTO)}


def test_a_host_that_does_not_exist_is_refused_at_the_start() -> None:
    async def run() -> None:
        await LoadProcess(load("http://no-such-host.invalid/"), seed=1, on_samples=lambda _: None).start()

    with pytest.raises(InputError, match=r"load: no-such-host\.invalid:80: "):
        asyncio.run(run())


def test_a_name_with_several_addresses_leads_to_the_one_that_answers(service: RunningService) -> None:
    taken, _ = some(load(f"http://localhost:{service.port}/"), 10)
    assert outcomes(taken) == {("ok", 200)}


def test_a_reader_that_fails_ends_the_load_and_is_told(service: RunningService) -> None:
    def full(_: list[Sample]) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        process = LoadProcess(load(service.url()), seed=1, on_samples=full)
        await process.start()
        await until(lambda: process.behind != "")
        assert "No space left on device" in process.behind
        with pytest.raises(OSError, match="No space left"):
            await process.stop()
        assert process.pid is None

    asyncio.run(run())


def test_a_load_that_dies_says_so(service: RunningService) -> None:
    async def run() -> str:
        async with LoadProcess(load(service.url()), seed=1, on_samples=lambda _: None) as process:
            os.kill(process.pid or 0, signal.SIGKILL)
            await until(lambda: process.behind != "")
            return process.behind

    assert asyncio.run(run()) == "the load's process ended before it was stopped"


def test_stopping_twice_and_leaving_nothing(service: RunningService) -> None:
    async def run() -> None:
        process = LoadProcess(load(service.url()), seed=1, on_samples=lambda _: None)
        await process.start()
        pid = process.pid
        assert await process.stop() == await process.stop()
        assert process.pid is None
        assert not running(pid or 0)

    before = len(descriptors())
    asyncio.run(run())
    assert len(descriptors()) == before


def test_a_cancelled_start_leaves_nothing(service: RunningService) -> None:
    async def run() -> int | None:
        process = LoadProcess(load(service.url()), seed=1, on_samples=lambda _: None)
        task = asyncio.ensure_future(process.start())
        await until(lambda: process.pid is not None)
        pid = process.pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    assert not running(asyncio.run(run()) or 0)


def test_the_process_ends_within_a_second_of_its_owner(service: RunningService, tmp_path: Path) -> None:
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import asyncio, sys\nfrom squall.probes.load import LoadProcess\nfrom squall.probes.spec import Load\n"
        "async def run():\n"
        f"    load = Load.model_validate({{'http': {{'url': '{service.url('/hang')}'}}, 'rate': '100/s'}})\n"
        "    process = LoadProcess(load, seed=1, on_samples=lambda _: None)\n"
        "    await process.start()\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(run())\n"
    )
    with subprocess.Popen([sys.executable, str(owner)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert comes_true(lambda: not running(pid), 1.0)


@pytest.mark.slow
def test_a_reader_that_stands_still_does_not_delay_the_sending(service: RunningService) -> None:
    async def run() -> LoadReport:
        taken = Taken()
        async with LoadProcess(load(service.url(), "500/s"), seed=1, on_samples=taken.extend) as process:
            await taken.until(lambda found: len(found) >= 10)
            time.sleep(1.0)  # noqa: ASYNC251 - the event loop stands still: that is the case
            await taken.until(lambda found: len(found) >= 600)
            return await process.stop()

    report = asyncio.run(run())
    assert report.unreported == 0
    assert report.late_p50_ns < 100_000_000  # a second of standing still would be in it


def test_secrets_are_not_in_the_process_list(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret-of-the-shop")
    wanted = Load.model_validate(
        {"http": {"url": service.url(), "headers": {"X-Key": {"env": "SHOP_TOKEN"}}}, "rate": "10/s"}
    )

    async def run() -> None:
        async with LoadProcess(wanted, seed=1, on_samples=lambda _: None):
            await until(lambda: anybody_runs("squall.probes.load_worker"))
            assert not anybody_runs("s3cret-of-the-shop")

    asyncio.run(run())


def test_a_worker_that_gets_no_order_ends() -> None:
    from squall.kernel import launch

    done = subprocess.run(
        launch.command("squall.probes.load_worker"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_an_owner_is_told_when_the_process_cannot_begin(
    monkeypatch: pytest.MonkeyPatch, service: RunningService
) -> None:
    from squall.kernel import launch

    monkeypatch.setattr(launch, "command", lambda _: ["false"])
    with pytest.raises(SquallError, match="load: the load's process ended before it was stopped"):
        asyncio.run(LoadProcess(load(service.url()), seed=1, on_samples=lambda _: None).start())
