"""The Go middleware's own tests, the table of cases that it shares with the Python one among them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.sdk_go.go_module import MODULES, SDK, go

pytestmark = pytest.mark.slow

OFF_NS_MAX = 500
"""What a request may pay for chaos that is off (targets of sdk/go); measured at 20 to 70 ns."""


@pytest.mark.parametrize("module", MODULES)
def test_a_module_passes_its_vet_and_its_tests(module: str) -> None:
    race = ["-race"] if shutil.which("gcc") and module != "routers" else []  # gin takes a minute to build so
    go(module, "vet", "./...")
    said = go(module, "test", "-count=1", *race, "./...")  # -count: Go would not see that a case was changed
    assert "no tests to run" not in said


def test_the_sources_are_formatted() -> None:
    found = shutil.which("gofmt") or shutil.which("gofmt", path="/usr/local/go/bin")
    if found is None:
        pytest.skip("needs gofmt: it comes with Go")
    done = subprocess.run([found, "-l", str(SDK)], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_the_main_module_needs_opentelemetrys_interface_alone() -> None:
    needed = set(go(".", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./...").split())
    assert needed == {
        "squall.dev/squallchaos", "go.opentelemetry.io/otel", "go.opentelemetry.io/otel/trace",
        "go.opentelemetry.io/otel/metric", "github.com/go-logr/logr", "github.com/go-logr/stdr",
    }  # fmt: skip


def test_control_files_are_fuzzed_a_little() -> None:
    said = go(".", "test", "-run", "^$", "-fuzz", "^FuzzControlFilesAreReadOrRefused$", "-fuzztime", "20000x", ".")
    assert "PASS" in said


def test_chaos_that_is_off_costs_next_to_nothing() -> None:
    said = go(
        ".",
        "test",
        "-run",
        "^$",
        "-bench",
        "LeftAlone/^(bare|off|driven,_idle)$",
        "-benchtime",
        "200000x",
        "-count",
        "3",
        ".",
    )
    found: dict[str, float] = {}
    for name, ns in re.findall(r"LeftAlone/(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op", said):
        found[name] = min(float(ns), found.get(name, float("inf")))
    assert set(found) == {"bare", "off", "driven,_idle"}
    assert max(found.values()) - found["bare"] < OFF_NS_MAX
