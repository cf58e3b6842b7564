"""The alerts: as promtool checks and plays them, and as a real Prometheus answers them in a real fault."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.deploy.conftest import DEPLOY, LAG_S, RATE_WINDOW
from tests.deploy.queries import rules
from tests.servers import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.conftest import Filled

PROMETHEUS = DEPLOY / "prometheus"
PLAYED = sorted(path.name for path in (PROMETHEUS / "tests").glob("*.yml"))
IN_THE_FAULT = sorted(name for name in rules() if name.startswith("Resilience"))


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    found = program("promtool")
    return subprocess.run(
        [found.path, *arguments], env=found.env, cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def test_promtool_checks_the_rules() -> None:
    done = promtool("check", "rules", "--lint-fatal", "rules.yml", cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("name", PLAYED)
def test_promtool_plays_the_rules(name: str) -> None:
    done = promtool("test", "rules", name, cwd=PROMETHEUS / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_played() -> None:
    played = "".join((PROMETHEUS / "tests" / name).read_text() for name in PLAYED)
    assert set(re.findall(r"alertname: (\w+)", played)) == set(rules())
    fires = re.findall(r"alertname: (\w+)\n +exp_alerts:\n", played)
    assert set(fires) == set(rules()), "for each there is a moment when it fires"


def test_a_rule_that_is_wrong_is_seen(tmp_path: Path) -> None:
    wrong = (PROMETHEUS / "rules.yml").read_text().replace("> 1.2", "> 12")
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules.yml").write_text(wrong)
    (tmp_path / "tests" / "resilience.yml").write_text((PROMETHEUS / "tests" / "resilience.yml").read_text())
    assert promtool("test", "rules", "resilience.yml", cwd=tmp_path / "tests").returncode != 0


@pytest.mark.parametrize("name", rules())
def test_an_alert_says_what_it_is_about(name: str) -> None:
    rule = rules()[name]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"]["summary"]
    if name.startswith("Resilience") and name != "ResilienceSettingsRefused":
        assert rule["annotations"]["dashboard"].startswith("/d/squall-resilience-health?")


def scaled(name: str) -> str:
    """An alert's query, its windows shorter by as much as scrapes come oftener here."""
    expression = rules()[name]["expr"]
    return str(expression.replace("[5m]", f"[{RATE_WINDOW}]").replace("[10m]", "[60s]"))


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_THE_FAULT)
def test_an_alert_is_quiet_while_all_is_well_and_not_in_the_fault(name: str, filled: Filled) -> None:
    during = filled.during(scaled(name))
    assert filled.before(scaled(name)) == []
    assert during
    assert {labels["dependency"] for labels, _ in during} & {"stock", "order", "reviews"}


@pytest.mark.slow
def test_a_fault_that_is_on_past_its_deadline_would_be_told(filled: Filled) -> None:
    expression = scaled("SquallFaultPastItsDeadline")
    assert filled.over_time(expression, filled.began, filled.ended) == [], "it ended in time"
    an_hour_later = expression.replace("time()", "(time() + 3600)")
    assert an_hour_later != expression
    found = filled.over_time(an_hour_later, filled.fault_began - 5, filled.fault_ended + LAG_S)
    ((labels, values),) = [one for one in found if one[0]["job"] == "squall"]
    assert labels["fault"] == "0-http.delay"
    assert filled.fault_began - 1 <= values[0][0]
    assert values[-1][0] <= filled.fault_ended + 2


@pytest.mark.slow
def test_a_run_that_is_killed_is_missed(filled: Filled) -> None:
    expression = scaled("SquallRunVanished")
    assert filled.over_time(expression, filled.began, filled.ended) == [], "the first one ended well"
    ((labels, _),) = filled.over_time(expression, filled.vanished, filled.vanished + 4)
    assert labels["experiment"] == "stock-is-slow"


@pytest.mark.slow
def test_residue_is_looked_for_in_what_runs_say_at_their_end(filled: Filled) -> None:
    expression = scaled("SquallResidue")
    assert filled.over_time(expression, filled.began, filled.ended + 2) == []
    assert filled.over_time(expression.replace("> 0", ">= 0"), filled.fault_ended, filled.ended + 2)
