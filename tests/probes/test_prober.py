"""All probes run at once, on time, whatever any of them does."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from squall.errors import InputError
from squall.probes import prober as prober_module
from squall.probes.prober import Prober
from squall.probes.samples import Sample
from squall.probes.spec import Probe
from tests.probes.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.probes.conftest import RunningService


def probe(name: str, every: str = "50ms", **fields: Any) -> Probe:
    return Probe.model_validate({"name": name, "every": every, "timeout": "1s", **fields})


async def collect(
    probes: list[Probe], enough: Callable[[list[Sample]], bool], seconds: float = 10.0
) -> tuple[list[Sample], Prober]:
    """All samples until there are enough, and the prober."""
    samples: list[Sample] = []
    changed = asyncio.Event()

    def take(batch: list[Sample]) -> None:
        samples.extend(batch)
        changed.set()

    async with Prober(probes, take) as prober, asyncio.timeout(seconds):
        while not enough(samples):
            await changed.wait()
            changed.clear()
    return samples, prober


def count(samples: list[Sample], series: str) -> int:
    return sum(sample.series == series for sample in samples)


def test_every_probe_keeps_its_own_period(service: RunningService) -> None:
    probes = [
        probe("fast", "20ms", tcp=f"127.0.0.1:{service.port}"),
        probe("slow", "100ms", http={"url": service.url()}),
        probe("alive", "100ms", process={"port": service.port}),
    ]
    samples, prober = asyncio.run(
        collect(probes, lambda found: count(found, "slow") >= 4 and count(found, "alive.cpu") >= 1)
    )
    assert prober.series() == (
        "fast",
        "slow",
        "alive",
        "alive.rss",
        "alive.fds",
        "alive.threads",
        "alive.cpu",
        "alive.restarts",
    )
    assert {sample.series for sample in samples} == set(prober.series())
    fast = [sample.time_ns for sample in samples if sample.series == "fast"]
    assert all((one - fast[0]) % 20_000_000 == 0 for one in fast)
    assert len(set(fast)) == len(fast) > count(samples, "slow")


def test_samples_that_a_stall_made_impossible_are_stood_in_for(service: RunningService) -> None:
    async def run() -> tuple[list[Sample], Prober]:
        samples: list[Sample] = []
        async with Prober([probe("shop", "50ms", http={"url": service.url()})], samples.extend) as prober:
            await until(lambda: len(samples) >= 3)
            service.pause()
            await asyncio.sleep(0.6)
            service.resume()
            await until(lambda: len(samples) >= 20)
        return samples, prober

    samples, prober = asyncio.run(run())
    times = sorted(sample.time_ns for sample in samples)
    assert {b - a for a, b in pairwise(times)} == {50_000_000}  # one for each period, none invented, none left out
    assert prober.missed["shop"] >= 8
    slow = sorted(sample.latency_ns for sample in samples if sample.latency_ns > 100_000_000)
    assert len(slow) >= 7  # a stall is as many slow samples as it lasted, not one
    assert slow[-1] > 400_000_000


def test_a_stall_that_ends_in_a_timeout_is_failures_for_as_long(service: RunningService) -> None:
    one = Probe.model_validate(
        {"name": "shop", "every": "50ms", "timeout": "300ms", "http": {"url": service.url("/hang")}}
    )
    samples, _ = asyncio.run(collect([one], lambda found: len(found) >= 6))
    assert {sample.outcome for sample in samples} == {"timeout"}
    assert [sample.latency_ns > 0 for sample in samples] == [True] * len(samples)


class Wild:
    """A probe that does all that a probe must not."""

    def __init__(self, one: Probe, _marks: object = None) -> None:
        self.name, self.calls, self.last_failure = one.name, 0, ""

    def series(self) -> tuple[str, ...]:
        return (self.name,)

    async def sample(self) -> list[Sample]:
        self.calls += 1
        if self.calls == 1:
            raise RecursionError("deep")
        if self.calls == 2:
            return []
        if self.calls == 3:
            await asyncio.sleep(60)
        return [Sample(self.name, 0, 0, "ok")]

    async def close(self) -> None:
        raise OSError("cannot")


def test_whatever_a_probe_does_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober_module, "build", Wild)
    monkeypatch.setattr(prober_module, "_GRACE_S", 0.05)
    one = Probe.model_validate({"name": "wild", "every": "20ms", "timeout": "50ms", "tcp": "a:1"})
    samples, prober = asyncio.run(collect([one], lambda found: any(sample.outcome == "ok" for sample in found)))
    assert samples[0].outcome == "error"
    assert "timeout" in {sample.outcome for sample in samples}
    assert "did not end within 50ms" in prober.last_failure("wild")


def test_an_error_of_the_reader_ends_the_prober(service: RunningService) -> None:
    def full(_: list[Sample]) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        async with Prober([probe("shop", tcp=f"127.0.0.1:{service.port}")], full):
            await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run())
    assert raised.group_contains(OSError, match="No space left")


def test_leaving_early_leaves_nothing_running(service: RunningService) -> None:
    async def run() -> None:
        async with Prober(
            [probe("hangs", http={"url": service.url("/hang")}), probe("runs", command="sleep 60")], lambda _: None
        ):
            await asyncio.sleep(0.05)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(run())


def test_a_probe_that_cannot_be_built_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match="SQUALL_NOT_SET is not set"):
        Prober([probe("shop", http={"url": "http://a/", "headers": {"a": {"env": "SQUALL_NOT_SET"}}})], lambda _: None)
