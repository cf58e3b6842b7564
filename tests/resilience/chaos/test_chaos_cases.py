"""The Python middleware decides as sdk/cases say, the table that the Go one runs too."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall_resilience.chaos import Chaos, ChaosSettings
from squall_resilience.chaos.decision import Hit, Seen
from squall_resilience.chaos.draws import draw
from squall_resilience.errors import SettingsError
from squall_resilience.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = Path(__file__).parents[3] / "sdk/cases"
LEASE_MS = 9000


def cases(*files: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{name}: {case['name']}")
        for name in files
        for case in json.loads((CASES / f"{name}.json").read_text())
    ]


def settings_of(given: dict[str, Any]) -> ChaosSettings:
    """Settings of a case: its delays are in ns."""
    return ChaosSettings(**{key: value / 1e9 if key.startswith("delay_") else value for key, value in given.items()})


def problems(make: Callable[[], object]) -> list[str]:
    """Which settings are named as wrong."""
    try:
        make()
    except SettingsError as error:
        return sorted({problem.path for problem in error.problems})
    return []


class SetClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("case", cases("draws"))
def test_the_draws_are_the_same_everywhere(case: dict[str, Any]) -> None:
    assert [int(draw(case["seed"], case["request"], which) * 2**53) for which in range(3)] == case["draws"]


def test_the_draws_are_those_of_splitmix() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # the generator's first, from seed 0
    assert [int(draw(0, 0, which) * 2**53) for which in range(3)] == [value >> 11 for value in published]


@pytest.mark.parametrize("case", cases("settings"))
def test_wrong_settings_are_refused_all_at_once(case: dict[str, Any], tmp_path: Path) -> None:
    assert problems(lambda: Chaos(settings_of(case["settings"]), registry=None, folder=tmp_path)) == case["problems"]


@pytest.mark.parametrize("case", cases("environment"))
def test_the_environment_is_read(case: dict[str, Any]) -> None:
    if "problems" in case:
        assert problems(lambda: ChaosSettings.from_environment(environ=case["environment"])) == case["problems"]
    else:
        assert ChaosSettings.from_environment(environ=case["environment"]) == settings_of(case["settings"])


@pytest.mark.parametrize("case", cases("decision", "header", "driven", "control-files"))
def test_a_request_is_decided_about(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in case.get("environment", {}).items():
        monkeypatch.setenv(variable, value)
    settings, clock = settings_of(case["settings"]), SetClock()
    lay_out(case, tmp_path, settings.target)
    clock.now = case["now"]
    registry = Registry()
    chaos = Chaos(settings, registry=registry, folder=tmp_path, clock=clock)
    for request in case["requests"]:
        clock.now = case["now"] + request.get("at", 0) / 1e9
        hits = [decide(chaos, request) for _ in range(request.get("repeat", 1))]
        expected = dict(request["expect"])
        assert (chaos.strips in {name.lower() for name in request["headers"]}) == expected.pop("stripped", False)
        assert ({"totals": totals(hits)} if "repeat" in request else said(hits[0])) == expected
    refused = [sample.value for sample in registry.samples() if sample.name == "http_chaos_refused_total"]
    assert sum(refused) == case["refused"]
    live = tmp_path / f"{settings.target}.{os.getpid()}.live"
    assert live.exists() == ("live" in case)
    if "live" in case:
        assert counts_in(live) == case["live"]


def lay_out(case: dict[str, Any], folder: Path, name: str) -> None:
    text = json.dumps(case["control"]) if "control" in case else case.get("control_text")
    if text is not None:
        (folder / f"{name}.json").write_text(text.ljust(case.get("control_pad", 0)))
        lease_ms = case.get("lease_ms", LEASE_MS)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if "lease_bytes" in case:
            (folder / f"{name}.lease").write_bytes(bytes.fromhex(case["lease_bytes"]))
        elif lease_ms is not None:
            (folder / f"{name}.lease").write_bytes((now + lease_ms * 10**6).to_bytes(8, "little"))
    if case.get("halt"):
        (folder / "HALT").touch()
    for path in folder.iterdir():
        path.chmod(0o644)


def decide(chaos: Chaos, request: dict[str, Any]) -> Hit | None:
    def values(name: str) -> list[str]:
        return [
            one
            for key, value in request["headers"].items()
            if key.lower() == name.lower()
            for one in (value if isinstance(value, list) else [value])
        ]

    sources = chaos.sources()
    return chaos.consider(sources, Seen(request["method"], request["path"], values)) if sources else None


def said(hit: Hit | None) -> dict[str, Any]:
    if hit is None:
        return {"outcome": "left alone"}
    if hit.status is None:
        return {"outcome": "delayed", "delay_ns": hit.delay_ns, "fault": hit.rule.fault}
    return {"outcome": "aborted", "status": hit.status, "fault": hit.rule.fault}


def totals(hits: list[Hit | None]) -> dict[str, int]:
    outcomes = [said(hit)["outcome"] for hit in hits]
    counted = {outcome: outcomes.count(outcome) for outcome in ("left alone", "delayed", "aborted")}
    return counted | {"delay_ns": sum(hit.delay_ns for hit in hits if hit is not None)}


def counts_in(live: Path) -> dict[str, int]:
    data = live.read_bytes()
    assert (len(data), data[:8], data[96:103]) == (128, b"SQCHAOS1", b"python ")
    requests, delayed, aborted, refused, delay_ns, _ = struct.unpack_from("<6Q", data, 24)
    return {"requests": requests, "delayed": delayed, "aborted": aborted, "refused": refused, "delay_ns": delay_ns}
