"""The pytest fixture, in a pytest of its own: it serves, and fails the tests whose calls were not as expected."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import urllib.request

def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()

def test_good(standin):
    first = standin([{"match": {"path": "/a"}, "answer": {"body": "one"}}])
    second = standin({"expectations": [{"answer": {"body": "two"}}]})
    assert (get(first.url + "/a"), get(second.url)) == (b"one", b"two")

def test_from_a_file(standin):
    assert get(standin("script.yaml").url) == b"three"

def test_unused(standin):
    standin([{"name": "never called", "answer": {}}])

def test_unexpected(standin):
    api = standin([{"match": {"path": "/a"}, "answer": {}, "atLeast": 0}])
    try:
        get(api.url + "/b")
    except urllib.error.HTTPError as error:
        error.close()

def test_wrong_script(standin):
    standin([{"anwser": {}}])
"""


@pytest.mark.slow
def test_the_fixture_serves_and_fails_tests_whose_calls_were_not_as_expected(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "script.yaml").write_text("expectations: [{answer: {body: three}}]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 4 passed, 2 errors" in done.stdout
    assert "unused: never called: expected at least 1 call, saw 0" in done.stdout
    assert "unexpected call 1: GET /b" in done.stdout
    assert "expectations[0].anwser: is not known here; did you mean 'answer'?" in done.stdout


def test_the_plugin_loads_nothing_that_is_not_asked_for() -> None:
    program = (
        "import sys, squall.standins.pytest_plugin\n"
        "heavy = {'pydantic', 'h11', 'httpx2', 'asyncio', 'ruamel', 'anyio', 'click', 'rich'}\n"
        "before = set(sys.modules)\n"
        "import pytest\n"
        "print(sorted(heavy & set(sys.modules) - {'asyncio'}), 'squall.standins.script' in before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[] False"
