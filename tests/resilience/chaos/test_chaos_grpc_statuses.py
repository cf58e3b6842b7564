"""The statuses of sdk/cases, which the interceptors in Go are held to as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squall_resilience.chaos.grpc import status_of

CASES = Path(__file__).parents[3] / "sdk" / "cases" / "grpc-status.json"


@pytest.mark.parametrize("case", json.loads(CASES.read_text()), ids=lambda case: str(case["name"]))
def test_a_status_becomes_one_of_grpc(case: dict[str, int]) -> None:
    assert status_of(case["status"]).value[0] == case["code"]
